-- Credits: prepaid accounts that can't go negative, an append-only ledger, reservations and the price list.

-- Types --------------------------------------------------------------------------------------------------------------

create type public.ledger_kind as enum ('grant', 'reserve', 'settle', 'release');

-- Tables -------------------------------------------------------------------------------------------------------------

-- available can be spent; reserved is promised to alerts that are under way
create table public.credit_accounts (
  organisation_id uuid primary key references public.organisations (id) on delete cascade,
  available bigint not null default 0 check (available >= 0),
  reserved bigint not null default 0 check (reserved >= 0)
);

-- append-only; both columns of an account are at all times the sums of their deltas here
create table public.credit_ledger (
  organisation_id uuid not null references public.credit_accounts (organisation_id) on delete cascade,
  id uuid not null default private.new_id(),
  kind public.ledger_kind not null,
  available_delta bigint not null,
  reserved_delta bigint not null,
  source text not null,
  source_id text not null,
  alert_id uuid,
  created_at timestamptz not null default now(),
  primary key (organisation_id, id),
  unique (organisation_id, source, source_id),
  constraint deltas_fit_kind check (
    case kind
      when 'grant' then available_delta > 0 and reserved_delta = 0
      when 'reserve' then available_delta <= 0 and reserved_delta = -available_delta
      when 'settle' then available_delta = 0 and reserved_delta < 0
      when 'release' then available_delta > 0 and reserved_delta = -available_delta
    end
  )
);
create index credit_ledger_alert on public.credit_ledger (organisation_id, alert_id) where alert_id is not null;

create table public.credit_reservations (
  organisation_id uuid not null references public.credit_accounts (organisation_id) on delete cascade,
  alert_id uuid not null,
  amount bigint not null check (amount >= 0),
  settled bigint not null default 0 check (settled >= 0),
  released bigint not null default 0 check (released >= 0),
  primary key (organisation_id, alert_id),
  constraint never_more_than_reserved check (settled + released <= amount)
);

create table public.price_lists (
  version integer primary key,
  effective_from timestamptz not null unique
);

-- credits a segment (sms), a call (voice) or a message (email, webhook); country ZZ: wherever it goes
create table public.prices (
  version integer not null references public.price_lists (version),
  channel public.channel not null,
  country text not null check (country ~ '^[A-Z]{2}$'),
  credits_per_unit integer not null check (credits_per_unit >= 0),
  primary key (version, channel, country)
);

-- Data ---------------------------------------------------------------------------------------------------------------

insert into public.price_lists (version, effective_from)
values (1, '2026-01-01 00:00:00+00');

insert into public.prices (version, channel, country, credits_per_unit)
values (1, 'email', 'ZZ', 1), (1, 'webhook', 'ZZ', 1);

insert into public.prices (version, channel, country, credits_per_unit)
select 1, 'sms'::public.channel, country, credits
from (values
  ('FR', 7), ('BE', 10), ('CH', 8), ('LU', 9), ('DE', 10), ('ES', 8), ('IT', 9), ('NL', 10), ('GB', 5), ('IE', 8),
  ('PT', 6), ('US', 2), ('CA', 2), ('AT', 10), ('DK', 6), ('SE', 7), ('FI', 9), ('NO', 8), ('PL', 4), ('MC', 9)
) as list (country, credits)
union all
select 1, 'voice'::public.channel, country, credits
from (values
  ('FR', 12), ('BE', 14), ('CH', 16), ('LU', 15), ('DE', 13), ('ES', 11), ('IT', 13), ('NL', 15), ('GB', 9), ('IE', 12),
  ('PT', 12), ('US', 5), ('CA', 5), ('AT', 15), ('DK', 12), ('SE', 12), ('FI', 14), ('NO', 14), ('PL', 11), ('MC', 18)
) as list (country, credits);

-- Guards -------------------------------------------------------------------------------------------------------------

create function private.refuse_change()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception '% is append-only', tg_table_name;
end
$$;

create trigger append_only
before update or truncate on public.credit_ledger
for each statement execute function private.refuse_change();

-- Money --------------------------------------------------------------------------------------------------------------

create function private.price_version(as_of timestamptz default now())
returns integer
language sql
stable
set search_path = ''
as $$
  select version from public.price_lists where effective_from <= as_of order by effective_from desc limit 1
$$;

create function private.grant_credits(p_organisation_id uuid, p_amount bigint, p_source text, p_source_id text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_account public.credit_accounts;
begin
  if coalesce(p_amount, 0) <= 0 or p_amount > 1000000000000 then
    perform private.refuse(422, 'amount_invalid', 'Grant a whole number of credits above 0.');
  end if;
  if not exists (select from public.organisations o where o.id = p_organisation_id) then
    perform private.refuse(404, 'organisation_not_found', 'No organisation has this id.');
  end if;
  insert into public.credit_accounts (organisation_id)
  values (p_organisation_id)
  on conflict (organisation_id) do nothing;

  with entry as (
    insert into public.credit_ledger (organisation_id, kind, available_delta, reserved_delta, source, source_id)
    values (p_organisation_id, 'grant', p_amount, 0, p_source, p_source_id)
    on conflict (organisation_id, source, source_id) do nothing
    returning available_delta
  )
  update public.credit_accounts a
  set available = a.available + entry.available_delta
  from entry
  where a.organisation_id = p_organisation_id;

  select * into v_account from public.credit_accounts where organisation_id = p_organisation_id;
  return jsonb_build_object('available', v_account.available, 'reserved', v_account.reserved);
end
$$;

-- one conditional update feeds the ledger and the reservation; 402 with need and have when it does not fit
create function private.reserve_credits(p_organisation_id uuid, p_alert_id uuid, p_amount bigint)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_have bigint;
begin
  insert into public.credit_accounts (organisation_id)
  values (p_organisation_id)
  on conflict (organisation_id) do nothing;

  with taken as (
    update public.credit_accounts
    set available = available - p_amount, reserved = reserved + p_amount
    where organisation_id = p_organisation_id and available >= p_amount
    returning organisation_id
  ),
  entry as (
    insert into public.credit_ledger (
      organisation_id, kind, available_delta, reserved_delta, source, source_id, alert_id
    )
    select organisation_id, 'reserve', -p_amount, p_amount, 'alert', p_alert_id::text, p_alert_id
    from taken
    returning organisation_id
  )
  insert into public.credit_reservations (organisation_id, alert_id, amount)
  select organisation_id, p_alert_id, p_amount
  from entry;

  if not found then
    select available into v_have
    from public.credit_accounts
    where organisation_id = p_organisation_id;
    perform private.refuse(
      402, 'credits_insufficient',
      format('This alert needs %s credits and the organisation has %s. Buy a pack or send to fewer people.', p_amount, v_have),
      jsonb_build_object('need', p_amount, 'have', v_have)
    );
  end if;
end
$$;

-- what a batch of deliveries cost and gave back, by organisation and alert, in the statement that records their results.
-- p_changes: [{organisation_id, alert_id, settle, release}]; p_source_id makes a repeat impossible
create function private.settle_credits(p_changes jsonb, p_source text, p_source_id text)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_change record;
begin
  for v_change in
    select c.organisation_id, c.alert_id, coalesce(c.settle, 0) as settle, coalesce(c.release, 0) as release
    from jsonb_to_recordset(p_changes) as c (organisation_id uuid, alert_id uuid, settle bigint, release bigint)
    where c.settle > 0 or c.release > 0
    order by c.organisation_id, c.alert_id
  loop
    update public.credit_accounts
    set reserved = reserved - v_change.settle - v_change.release, available = available + v_change.release
    where organisation_id = v_change.organisation_id;

    update public.credit_reservations
    set settled = settled + v_change.settle, released = released + v_change.release
    where organisation_id = v_change.organisation_id and alert_id = v_change.alert_id;

    insert into public.credit_ledger (
      organisation_id, kind, available_delta, reserved_delta, source, source_id, alert_id
    )
    select
      v_change.organisation_id, e.kind, e.available_delta, -e.amount, p_source || ':' || e.kind,
      p_source_id || ':' || v_change.alert_id, v_change.alert_id
    from (values
      ('settle'::public.ledger_kind, v_change.settle, 0::bigint),
      ('release'::public.ledger_kind, v_change.release, v_change.release)
    ) as e (kind, amount, available_delta)
    where e.amount > 0;
  end loop;
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.grant_credits(p_organisation_id uuid, p_amount bigint, p_source text, p_source_id text)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.grant_credits(p_organisation_id, p_amount, p_source, p_source_id);
end;

-- Access -------------------------------------------------------------------------------------------------------------

alter table public.credit_accounts enable row level security;
alter table public.credit_ledger enable row level security;
alter table public.credit_reservations enable row level security;
alter table public.price_lists enable row level security;
alter table public.prices enable row level security;

revoke all on public.credit_accounts, public.credit_ledger, public.credit_reservations, public.price_lists, public.prices
  from public, anon, authenticated, service_role;
grant select on public.credit_accounts, public.credit_ledger, public.credit_reservations, public.price_lists, public.prices
  to authenticated;

create policy "Credit accounts can be read by members who may read billing" on public.credit_accounts
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('billing.read'))));

create policy "Ledger entries can be read by members who may read billing" on public.credit_ledger
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('billing.read'))));

create policy "Reservations can be read by members who may read billing" on public.credit_reservations
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('billing.read'))));

create policy "Price lists can be read by every member" on public.price_lists
for select to authenticated
using ((select auth.uid()) is not null);

create policy "Prices can be read by every member" on public.prices
for select to authenticated
using ((select auth.uid()) is not null);

select private.open_to('service_role', 'grant_credits');
