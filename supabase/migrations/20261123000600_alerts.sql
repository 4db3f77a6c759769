-- Alerts: what is to be said to whom; the pinned texts; and every recipient's delivery, one row a path.

-- Types --------------------------------------------------------------------------------------------------------------

create type public.severity as enum ('critical', 'urgent', 'normal');
create type public.alert_state as enum ('quoted', 'sending', 'completed');
create type public.delivery_state as enum (
  'planned',          -- waits for its turn (or for its next attempt)           -> claimed, expired, cancelled, skipped
  'held',             -- waits for an instant, an approval or a resume           -> planned, expired, cancelled
  'claimed',          -- a dispatcher has it under a lease                       -> handed_over, planned, failed, outcome_unknown
  'outcome_unknown',  -- perhaps accepted: the provider is asked first           -> handed_over, planned, dead_letter
  'handed_over',      -- the provider accepted it: settled                       -> sent, delivered, undelivered, no_receipt
  'sent',             -- the provider passed it on                               -> delivered, undelivered, no_receipt
  'delivered',        -- it arrived                                              -> answered
  'answered',         -- the person answered
  'skipped',          -- never tried, for the reason given
  'expired',          -- too late to be of use
  'cancelled',        -- stopped by the organisation
  'limit_exceeded',   -- refused by a limit of the organisation
  'failed',           -- the provider would not take it
  'undelivered',      -- the provider took it and could not deliver it
  'no_receipt',       -- the provider took it and never told more
  'dead_letter'       -- nobody could say whether it was accepted; never sent again
);

-- Tables -------------------------------------------------------------------------------------------------------------

-- the id is chosen by the caller, a UUID version 7: its instant decides the partition of the deliveries.
-- id is unique everywhere, since callbacks know the alert only; 74 random bits keep it from being guessed
create table public.alerts (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  id uuid not null unique check (private.time_of(id) is not null),
  title text not null check (char_length(title) between 1 and 200 and private.is_clean(title)),
  severity public.severity not null,
  lane smallint not null generated always as (
    case severity when 'critical' then 1 when 'urgent' then 2 else 3 end
  ) stored,
  state public.alert_state not null,
  channels public.channel[] not null check (cardinality(channels) between 1 and 4),
  template_id uuid not null,
  template_version integer not null,
  price_version integer not null references public.price_lists (version),
  group_ids uuid[] not null default '{}',
  contact_ids uuid[] not null default '{}',
  expires_at timestamptz not null,
  request_hash bytea not null,
  answer jsonb,
  created_by uuid references auth.users (id) on delete set null,
  created_at timestamptz not null default now(),
  completed_at timestamptz,
  expired_at timestamptz,         -- when its waiting rows were swept
  receipts_closed_at timestamptz, -- when its rows without a receipt were told so
  primary key (organisation_id, id),
  foreign key (organisation_id, template_id) references public.templates (organisation_id, id)
);
create index alerts_template on public.alerts (organisation_id, template_id);
create index alerts_author on public.alerts (created_by);
create index alerts_under_way on public.alerts (expires_at) where state = 'sending';
create index alerts_awaiting_receipts on public.alerts (expires_at) where state = 'completed' and receipts_closed_at is null;

-- the texts as they were when the alert was made, with the alert's own values filled in
create table private.alert_contents (
  organisation_id uuid not null,
  alert_id uuid not null,
  channel public.channel not null,
  language text not null,
  subject private.pieces,
  body private.pieces not null,
  html private.pieces,
  segments integer,   -- sms: known beforehand when the text is the same for everyone
  ascii_size integer, -- sms: what the fixed part takes, see private.sms_fixed_size
  needed text[],      -- variables that every recipient must have
  primary key (organisation_id, alert_id, channel, language),
  foreign key (organisation_id, alert_id) references public.alerts (organisation_id, id) on delete cascade
);

-- one row a path (alert, contact, step). Addresses and texts are read when it is claimed, never kept here.
-- Only private functions write it; claimable_at is the one indexed column that changes, so that most updates stay HOT
create table public.deliveries (
  organisation_id uuid not null,
  alert_id uuid not null,
  number integer not null,
  contact_id uuid not null,
  address_id uuid,
  claimable_at timestamptz,
  state_changed_at timestamptz not null,
  handed_over_at timestamptz,
  sent_at timestamptz,
  delivered_at timestamptz,
  answered_at timestamptz,
  lease uuid,
  cost integer not null check (cost >= 0),
  channel public.channel not null,
  state public.delivery_state not null,
  attempt smallint not null default 0,
  failures smallint not null default 0,
  step smallint not null,
  lane smallint not null,
  segments smallint not null check (segments >= 0),
  country text,
  language text,
  reason text,
  destination_hash bytea,
  destination_tail text,
  provider_id text,
  failure_code text,
  primary key (organisation_id, alert_id, number),
  constraint claimable_only_while_waiting check (claimable_at is null or state = 'planned'),
  constraint planned_is_claimable check (state <> 'planned' or claimable_at is not null),
  constraint final_without_send_has_a_reason check (state not in ('skipped', 'failed', 'undelivered') or reason is not null)
) partition by range (alert_id);

-- what happened to a delivery, append-only: results of attempts and receipts, raw status and code beside our state
create table public.delivery_events (
  organisation_id uuid not null,
  alert_id uuid not null,
  number integer not null,
  id bigint generated always as identity,
  at timestamptz not null,
  kind text not null check (kind in ('accepted', 'failed', 'unknown', 'absent', 'receipt', 'answer')),
  state public.delivery_state not null,
  attempt smallint,
  provider_id text,
  status text,
  code text,
  primary key (organisation_id, alert_id, number, id)
) partition by range (alert_id);

-- how far a state is: a receipt only ever moves a row to a higher rank; and what people are told
create table private.delivery_states (
  state public.delivery_state primary key,
  rank smallint not null,
  is_open boolean not null
);

-- Data ---------------------------------------------------------------------------------------------------------------

insert into private.delivery_states (state, rank, is_open)
values
  ('planned', 0, true), ('held', 0, true), ('claimed', 1, true), ('outcome_unknown', 1, true),
  ('dead_letter', 2, false), ('no_receipt', 3, false), ('handed_over', 3, true), ('sent', 4, true),
  ('undelivered', 5, false), ('delivered', 6, false), ('answered', 7, false),
  ('skipped', 9, false), ('expired', 9, false), ('cancelled', 9, false), ('limit_exceeded', 9, false), ('failed', 9, false);

-- Partitions ---------------------------------------------------------------------------------------------------------

-- the months around as_of exist: children live in private, with row-level security and no grants of their own
create function private.ensure_partitions(as_of timestamptz default now())
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_month timestamptz;
  v_table text;
  v_child text;
  v_made integer := 0;
begin
  for v_month in
    select generate_series(
      date_trunc('month', as_of, 'UTC') - interval '1 month', date_trunc('month', as_of, 'UTC') + interval '3 months',
      interval '1 month'
    )
  loop
    foreach v_table in array array['deliveries', 'delivery_events']
    loop
      v_child := v_table || to_char(v_month at time zone 'UTC', '_YYYY_MM');
      continue when to_regclass('private.' || v_child) is not null;
      execute format(
        'create table private.%I partition of public.%I for values from (%L) to (%L)',
        v_child, v_table,
        private.time_prefix(v_month) || '-0000-0000-000000000000',
        private.time_prefix(v_month + interval '1 month') || '-0000-0000-000000000000'
      );
      execute format('alter table private.%I enable row level security', v_child);
      execute format('revoke all on private.%I from public, anon, authenticated, service_role', v_child);
      if v_table = 'deliveries' then
        execute format(
          'alter table private.%I set (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05)', v_child
        );
        execute format(
          'create index %I on private.%I (organisation_id, channel, lane, claimable_at) where claimable_at is not null',
          v_child || '_claim', v_child
        );
      else
        execute format(
          'create index %I on private.%I (provider_id) where kind = ''accepted'' and provider_id is not null',
          v_child || '_provider', v_child
        );
      end if;
      v_made := v_made + 1;
    end loop;
  end loop;
  return v_made;
end
$$;

select private.ensure_partitions();

-- Guards -------------------------------------------------------------------------------------------------------------

create trigger append_only
before update on public.delivery_events
for each statement execute function private.refuse_change();

-- Access -------------------------------------------------------------------------------------------------------------

alter table public.alerts enable row level security;
alter table public.deliveries enable row level security;
alter table public.delivery_events enable row level security;
alter table private.alert_contents enable row level security;
alter table private.delivery_states enable row level security;

revoke all on public.alerts, public.deliveries, public.delivery_events from public, anon, authenticated, service_role;
grant select (
  organisation_id, id, title, severity, lane, state, channels, template_id, template_version, price_version, group_ids,
  contact_ids, expires_at, created_by, created_at, completed_at
) on public.alerts to authenticated;
grant select (
  organisation_id, alert_id, number, contact_id, address_id, state_changed_at, handed_over_at, sent_at, delivered_at,
  answered_at, cost, channel, state, attempt, step, lane, segments, country, language, reason, destination_tail,
  failure_code
) on public.deliveries to authenticated;
grant select on public.delivery_events to authenticated;

create policy "Alerts can be read by members who may read alerts" on public.alerts
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('alerts.read'))));

create policy "Deliveries can be read by members who may read deliveries" on public.deliveries
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('deliveries.read'))));

create policy "Delivery events can be read by members who may read deliveries" on public.delivery_events
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('deliveries.read'))));
