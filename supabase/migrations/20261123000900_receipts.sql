-- Receipts: what providers tell us, in any order and repeated; the inbox for what nobody can place yet.

-- Tables -------------------------------------------------------------------------------------------------------------

-- every provider event once, by a key of its own; no address and no text is kept. Unplaced ones wait here
create table private.receipts (
  provider text not null check (provider in ('twilio', 'resend')),
  event_key text not null check (char_length(event_key) between 1 and 200),
  kind text not null check (kind in ('message', 'call', 'email')),
  alert_id uuid,
  number integer,
  attempt smallint,
  provider_id text,
  status text not null,
  code text,
  occurred_at timestamptz not null,
  received_at timestamptz not null default now(),
  applied_at timestamptz,
  primary key (provider, event_key)
);
create index receipts_waiting on private.receipts (provider_id) where applied_at is null;

-- what a provider's status means here; an unknown status is kept raw and changes nothing
create table private.provider_statuses (
  kind text not null,
  status text not null,
  state public.delivery_state not null,
  reason text,
  primary key (kind, status),
  constraint undelivered_has_a_reason check (state <> 'undelivered' or reason is not null)
);

-- Data ---------------------------------------------------------------------------------------------------------------

-- https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
-- https://www.twilio.com/docs/voice/api/call-resource#call-status-values
-- https://resend.com/docs/dashboard/webhooks/event-types
insert into private.provider_statuses (kind, status, state, reason)
values
  ('message', 'accepted', 'handed_over', null), ('message', 'scheduled', 'handed_over', null),
  ('message', 'queued', 'handed_over', null), ('message', 'sending', 'handed_over', null),
  ('message', 'sent', 'sent', null), ('message', 'delivered', 'delivered', null), ('message', 'read', 'delivered', null),
  ('message', 'undelivered', 'undelivered', 'carrier'), ('message', 'failed', 'undelivered', 'carrier'),
  ('message', 'canceled', 'undelivered', 'cancelled_at_provider'),
  ('call', 'queued', 'handed_over', null), ('call', 'initiated', 'handed_over', null), ('call', 'ringing', 'sent', null),
  ('call', 'in-progress', 'sent', null), ('call', 'completed', 'delivered', null),
  ('call', 'busy', 'undelivered', 'busy'), ('call', 'no-answer', 'undelivered', 'no_answer'),
  ('call', 'failed', 'undelivered', 'carrier'), ('call', 'canceled', 'undelivered', 'cancelled_at_provider'),
  ('email', 'sent', 'sent', null), ('email', 'delivery_delayed', 'sent', null),
  ('email', 'delivered', 'delivered', null), ('email', 'opened', 'delivered', null),
  ('email', 'clicked', 'delivered', null), ('email', 'complained', 'delivered', null),
  ('email', 'bounced', 'undelivered', 'bounced'), ('email', 'failed', 'undelivered', 'carrier'),
  ('email', 'suppressed', 'undelivered', 'suppressed_at_provider');

-- Projection ---------------------------------------------------------------------------------------------------------

-- applies stored receipts, given by key, each once: whoever calls marked them as applied in this transaction. The highest
-- rank wins, whatever the order. A receipt also proves acceptance, so a row in doubt is settled by it; a duplicate of an
-- abandoned attempt is written down as an event. Returns how many there were
create function private.apply_receipts(p_receipts jsonb)
returns integer
language plpgsql
set search_path = ''
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_done record;
begin
  -- every join below is by key or by one row: joins of these sets with one another would be quadratic (or cubic)
  with receipt as materialized (
    select
      a.organisation_id, r.alert_id, r.number, r.attempt, r.provider, r.event_key, r.kind, r.provider_id, r.status, r.code,
      r.occurred_at, s.state as told, s.reason as told_reason, coalesce(t.rank, 0) as told_rank,
      d.state, d.destination_hash
    from jsonb_to_recordset(p_receipts) as k (provider text, event_key text)
    -- lateral with a limit: each by its whole key. A plan kept since the tables were small would read a whole alert
    cross join lateral (
      select r.* from private.receipts r
      where r.provider = k.provider and r.event_key = k.event_key
      limit 1
    ) as r
    join public.alerts a on a.id = r.alert_id
    cross join lateral (
      select d.state, d.destination_hash from public.deliveries d
      where d.organisation_id = a.organisation_id and d.alert_id = r.alert_id and d.number = r.number
      limit 1
    ) as d
    left join private.provider_statuses s on s.kind = r.kind and s.status = r.status
    left join private.delivery_states t on t.state = s.state
  ),
  subject as (
    select
      organisation_id, alert_id, number,
      max(told_rank) as told_rank,
      (array_agg(told order by told_rank desc, occurred_at, status, code nulls first))[1] as told,
      (array_agg(told_reason order by told_rank desc, occurred_at, status, code nulls first))[1] as told_reason,
      (array_agg(occurred_at order by told_rank desc, occurred_at, status, code nulls first))[1] as told_at,
      (array_agg(status order by told_rank desc, occurred_at, status, code nulls first))[1] as status,
      (array_agg(code order by told_rank desc, occurred_at, status, code nulls first))[1] as code,
      (array_agg(provider_id order by told_rank desc, occurred_at, status, code nulls first))[1] as provider_id,
      min(occurred_at) as first_at,
      min(occurred_at) filter (where told_rank >= 4) as sent_at,
      min(occurred_at) filter (where told = 'delivered') as delivered_at
    from receipt
    where told is not null
    group by organisation_id, alert_id, number
  ),
  locked as materialized (
    -- nothing is joined by a column that changes: a row that changed while we waited for its lock would fall out
    select
      s.*, d.state, d.reason, d.failure_code,
      d.handed_over_at is null and d.state in ('planned', 'claimed', 'outcome_unknown') as newly_accepted
    from subject s
    join public.deliveries d using (organisation_id, alert_id, number)
    order by d.alert_id, d.number
    for update of d
  ),
  judged as materialized (
    select
      l.*,
      l.told_rank > n.rank as moves,
      -- of several that say the same (busy, failed) the earliest explains it, whichever came first
      l.told = l.state and (l.told_reason, l.code) is distinct from (l.reason, l.failure_code) and (
        l.told_at, l.status, coalesce(l.code, '')
      ) < (
        select e.at, e.status, coalesce(e.code, '')
        from public.delivery_events e
        where e.organisation_id = l.organisation_id and e.alert_id = l.alert_id and e.number = l.number
          and e.kind = 'receipt' and e.state = l.state
          and e.status in (select s.status from private.provider_statuses s where s.state = l.state)
        order by e.at, e.status, coalesce(e.code, '')
        limit 1
      ) as explains
    from locked l
    join private.delivery_states n on n.state = l.state
    -- a row that ended without a send stays as it is: its receipt is an event, and a finding for the reconciliation
    where n.rank < 9
  ),
  updated as (
    update public.deliveries d
    set
      state = case when l.moves then l.told else d.state end,
      reason = case when l.moves or l.explains then l.told_reason else d.reason end,
      failure_code = case when l.moves or l.explains then l.code else d.failure_code end,
      claimable_at = case when l.moves then null else d.claimable_at end,
      state_changed_at = case when l.moves then v_now else d.state_changed_at end,
      handed_over_at = least(d.handed_over_at, l.first_at),
      sent_at = least(d.sent_at, l.sent_at),
      delivered_at = least(d.delivered_at, l.delivered_at),
      provider_id = coalesce(d.provider_id, l.provider_id)
    from judged l
    where d.organisation_id = l.organisation_id and d.alert_id = l.alert_id and d.number = l.number
    returning d.organisation_id, d.alert_id, d.number, d.cost, l.newly_accepted
  ),
  written as (
    insert into public.delivery_events (
      organisation_id, alert_id, number, at, kind, state, attempt, provider_id, status, code
    )
    select
      organisation_id, alert_id, number, occurred_at, 'receipt', coalesce(told, state), attempt, provider_id, status, code
    from receipt
    returning number
  )
  select
    (select count(*) from receipt) as applied,
    (select jsonb_agg(c) from (
      select organisation_id, alert_id, sum(cost) as settle
      from updated where newly_accepted group by organisation_id, alert_id
    ) as c) as changes,
    (select jsonb_agg(s) from (
      select distinct
        organisation_id, destination_hash,
        case status when 'complained' then 'complaint' when 'bounced' then 'bounce' else 'opt_out' end as reason,
        case kind when 'email' then 'email' else 'sms' end as channel
      from receipt
      where (kind = 'email' and (status = 'complained' or (status = 'bounced' and code = 'Permanent')))
        or (kind = 'message' and code = '21610')
    ) as s) as blocked
  into v_done;

  perform private.suppress(
    s.organisation_id, s.destination_hash, s.channel::public.channel, s.reason::public.suppression_reason, 'receipt'
  )
  from jsonb_to_recordset(v_done.blocked) as s (organisation_id uuid, destination_hash bytea, reason text, channel text)
  order by s.organisation_id, s.destination_hash, s.channel, s.reason;
  perform private.settle_credits(v_done.changes, 'receipt', gen_random_uuid()::text);
  return v_done.applied;
end
$$;

-- stores each event once and applies it when its row is there. An event without our reference waits for its provider id
create function private.record_receipts(p_receipts jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
  v_new jsonb;
  v_count integer;
  v_applied integer := 0;
begin
  with incoming as (
    select distinct on (r.provider, r.event_key) r.*
    from jsonb_to_recordset(p_receipts) as r (
      provider text, event_key text, kind text, delivery_id text, attempt integer, provider_id text, status text, code text,
      occurred_at timestamptz
    )
  ),
  addressed as (
    select
      i.*,
      coalesce(substr(i.delivery_id, 1, 32)::uuid, known.alert_id) as alert_id,
      coalesce(substr(i.delivery_id, 34)::integer, known.number) as number
    from incoming i
    left join lateral (
      select e.alert_id, e.number
      from public.delivery_events e
      where i.delivery_id is null and e.kind = 'accepted' and e.provider_id = i.provider_id
      limit 1
    ) as known on true
  ),
  stored as (
    insert into private.receipts (
      provider, event_key, kind, alert_id, number, attempt, provider_id, status, code, occurred_at, applied_at
    )
    select
      i.provider, i.event_key, i.kind, i.alert_id, i.number, i.attempt, i.provider_id, left(i.status, 40), left(i.code, 60),
      -- a provider's clock may be wrong: never later than now
      least(coalesce(i.occurred_at, now()), now()),
      -- applied below, in this transaction: a second version of each row would cost as much as the first
      case when its_row.number is not null then now() end
    from addressed i
    -- lateral with a limit: by its whole key. `exists` may become a hash of every delivery that there is
    left join lateral (
      select d.number
      from public.alerts a
      join public.deliveries d on d.organisation_id = a.organisation_id and d.alert_id = i.alert_id and d.number = i.number
      where a.id = i.alert_id
      limit 1
    ) as its_row on true
    order by i.provider, i.event_key
    on conflict (provider, event_key) do nothing
    returning provider, event_key, applied_at
  )
  select count(*), jsonb_agg(jsonb_build_object('provider', provider, 'event_key', event_key)) filter (where applied_at is not null)
  into v_count, v_new
  from stored;

  if v_new is not null then
    v_applied := private.apply_receipts(v_new);
  end if;
  return jsonb_build_object(
    'stored', v_count, 'repeated', jsonb_array_length(p_receipts) - v_count, 'applied', v_applied,
    'waiting', v_count - v_applied
  );
end
$$;

-- receipts that came before the row knew its provider id
create function private.replay_receipts(p_provider_ids text[])
returns integer
language plpgsql
set search_path = ''
set enable_seqscan = off
as $$
declare
  v_found jsonb;
begin
  if p_provider_ids is null or not exists (select from private.receipts where applied_at is null limit 1) then
    return 0;
  end if;
  with placed as (
    update private.receipts r
    set alert_id = e.alert_id, number = e.number, applied_at = now()
    from public.delivery_events e
    where r.applied_at is null and r.provider_id = any (p_provider_ids)
      and e.kind = 'accepted' and e.provider_id = r.provider_id
      and r.alert_id is null
    returning r.provider, r.event_key
  )
  select jsonb_agg(placed) into v_found from placed;
  if v_found is null then
    return 0;
  end if;
  return private.apply_receipts(v_found);
end
$$;

-- a receipt and its row may come at the same instant, unseen by each other: the sweep brings them together
create function private.replay_waiting(p_now timestamptz)
returns integer
language sql
set search_path = ''
as $$
  select private.replay_receipts(array_agg(distinct r.provider_id))
  from private.receipts r
  where r.applied_at is null and r.alert_id is null and r.provider_id is not null
    and r.received_at > p_now - interval '1 day'
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.record_receipts(p_receipts jsonb)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.record_receipts(p_receipts);
end;

-- Access -------------------------------------------------------------------------------------------------------------

alter table private.receipts enable row level security;
alter table private.provider_statuses enable row level security;

select private.open_to('service_role', 'record_receipts');
