-- Dispatch: claim with lease and fence, record with settlement, ask before a second send, sweep what was left behind.

-- Tables -------------------------------------------------------------------------------------------------------------

-- a sending identity and its pace: a token bucket in segments a second, shared by every dispatcher through this row
create table private.senders (
  channel public.channel primary key,
  address text,
  segments_per_second numeric not null check (segments_per_second > 0),
  burst numeric not null check (burst >= 1),
  tokens numeric not null,
  filled_at timestamptz not null default now(),
  halted_until timestamptz not null default '-infinity',  -- a provider said "not before", or a configuration failed
  halt_code text
);

-- what a dispatcher holds (claim), or what must be asked about (unknown); `key` names a frozen batch for good
create table private.leases (
  token uuid primary key,
  key uuid not null,
  channel public.channel not null,
  kind text not null check (kind in ('claim', 'unknown')),
  worker text not null,
  due_at timestamptz not null,     -- claim: the lease ends; unknown: ask (again) from then on
  claimed_at timestamptz not null, -- no attempt of this batch began before
  tries smallint not null default 0,
  open_count integer not null check (open_count >= 0),
  alert_ids uuid[] not null,
  numbers integer[] not null
);
create index leases_due on private.leases (kind, channel, due_at);

-- what to do about a failed attempt; delays double from base to max, with jitter
create table private.failure_policies (
  outcome text primary key,
  counts boolean not null,      -- towards max_failures
  max_failures smallint,        -- 0: final at once; null: until it expires
  final_reason text not null,
  base_seconds numeric not null,
  max_seconds numeric not null
);

-- dispatchers that are at work, so that kicks have a limit
create table private.dispatchers (
  worker text primary key,
  alive_until timestamptz not null
);

-- Data ---------------------------------------------------------------------------------------------------------------

-- cautious defaults of one long code, one voice account, one e-mail team: raise them to what the provider grants
insert into private.senders (channel, segments_per_second, burst, tokens)
values ('sms', 10, 10, 10), ('voice', 1, 1, 1), ('email', 500, 500, 500), ('webhook', 200, 200, 200);

insert into private.failure_policies (outcome, counts, max_failures, final_reason, base_seconds, max_seconds)
values
  ('throttle', false, null, 'exhausted', 1, 60),
  ('transient', true, 6, 'exhausted', 2, 300),
  ('absent', true, 12, 'exhausted', 0, 0),
  ('returned', false, null, 'exhausted', 0, 0),
  ('permanent', true, 0, 'permanent', 0, 0),
  ('content', true, 0, 'permanent', 0, 0),
  ('destination', true, 0, 'permanent', 0, 0),
  ('opted_out', true, 0, 'permanent', 0, 0),
  ('configuration', true, 0, 'configuration', 0, 0);

-- Claim --------------------------------------------------------------------------------------------------------------

-- how many segments may be sent now; -1 and the wait when none. Holds the sender's row until the claim commits
create function private.take_turn(p_channel public.channel, p_now timestamptz, out budget integer, out wait_seconds numeric)
language plpgsql
set search_path = ''
as $$
declare
  v_sender private.senders;
begin
  select * into v_sender from private.senders where channel = p_channel for update;
  if v_sender.halted_until > p_now then
    budget := 0;
    wait_seconds := extract(epoch from v_sender.halted_until - p_now);
    return;
  end if;
  update private.senders
  set tokens = least(burst, tokens + segments_per_second * greatest(0, extract(epoch from p_now - filled_at))),
    filled_at = p_now
  where channel = p_channel
  returning floor(tokens) into budget;
  if budget < 1 then
    wait_seconds := (1 - v_sender.tokens) / v_sender.segments_per_second;
  end if;
end
$$;

-- the next deliveries of a channel, leased: lower lanes first, organisations in turns, no more segments than the sender
-- may send. What may no longer be sent is skipped here and refunded. Addresses and texts are read now, not at the send
create function private.claim_deliveries(p_channel public.channel, p_batch integer, p_lease_seconds integer, p_worker text)
returns json
language plpgsql
security definer
set search_path = ''
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_lease uuid := gen_random_uuid();
  v_turn record;
  v_claim record;
begin
  v_turn := private.take_turn(p_channel, v_now);
  if v_turn.budget < 1 then
    return json_build_object('lease', null, 'deliveries', '[]'::json, 'wait_seconds', v_turn.wait_seconds);
  end if;

  with queue as materialized (
    select q.organisation_id, q.lane, q.served_at
    from private.queues q
    where q.channel = p_channel and q.due_at <= v_now
    order by q.lane, q.served_at
    limit 32
  ),
  candidate as (
    select
      q.lane, q.served_at, d.organisation_id, d.alert_id, d.number, d.segments,
      row_number() over (partition by q.organisation_id, q.lane order by d.claimable_at) as turn
    from queue q
    cross join lateral (
      select d.organisation_id, d.alert_id, d.number, d.segments, d.claimable_at
      from public.deliveries d
      where d.organisation_id = q.organisation_id and d.channel = p_channel and d.lane = q.lane
        and d.claimable_at <= v_now
      order by d.claimable_at
      limit p_batch
    ) as d
  ),
  spent as (
    select c.*, sum(greatest(c.segments, 1)) over (order by c.lane, c.turn, c.served_at, c.number) as so_far
    from candidate c
  ),
  chosen as materialized (
    -- at least one, even when it alone is longer than the burst: the bucket goes below zero and refills
    select organisation_id, alert_id, number
    from spent
    where so_far - greatest(segments, 1) < v_turn.budget
    order by lane, turn, served_at, number
    limit p_batch
  ),
  locked as materialized (
    select d.organisation_id, d.alert_id, d.number, d.contact_id, d.address_id, d.language
    from chosen c
    join public.deliveries d using (organisation_id, alert_id, number)
    where d.state = 'planned' and d.claimable_at <= v_now
    order by d.alert_id, d.number
    for update of d skip locked
  ),
  judged as materialized (
    select
      l.organisation_id, l.alert_id, l.number, l.language,
      person.name, person.external_id, person.attributes, a.value as destination, a.destination_hash, alert.expires_at,
      case
        when alert.expires_at <= v_now then 'expired'
        when person.id is null then 'erased'
        when person.restricted_at is not null then 'restricted'
        when a.id is null then 'no_address'
        else (
          select case s.reason when 'opt_out' then 'opted_out' else 'suppressed' end
          from public.suppressions s
          where s.organisation_id = l.organisation_id and s.destination_hash = a.destination_hash
            and (s.channel is null or s.channel = p_channel)
          order by s.reason
          limit 1
        )
      end as verdict
    from locked l
    join public.alerts alert on alert.organisation_id = l.organisation_id and alert.id = l.alert_id
    left join public.contacts person on person.organisation_id = l.organisation_id and person.id = l.contact_id
    left join public.addresses a
      on a.organisation_id = l.organisation_id and a.id = l.address_id and a.contact_id = l.contact_id
  ),
  updated as (
    update public.deliveries d
    set
      state = case
        when j.verdict is null then 'claimed'
        when j.verdict = 'expired' then 'expired'
        else 'skipped'
      end::public.delivery_state,
      reason = j.verdict,
      claimable_at = null,
      state_changed_at = v_now,
      lease = case when j.verdict is null then v_lease end,
      attempt = d.attempt + case when j.verdict is null then 1 else 0 end,
      destination_hash = coalesce(j.destination_hash, d.destination_hash),
      destination_tail = coalesce(right(j.destination, 4), d.destination_tail)
    from judged j
    where d.organisation_id = j.organisation_id and d.alert_id = j.alert_id and d.number = j.number
    returning
      d.organisation_id, d.alert_id, d.number, d.lane, d.attempt, d.segments, d.cost, d.state, d.language,
      j.name, j.external_id, j.attributes, j.destination, j.expires_at
  ),
  message as (
    select u.*, c.subject, c.body, c.html
    from updated u
    join private.alert_contents c
      on c.organisation_id = u.organisation_id and c.alert_id = u.alert_id
      and c.channel = p_channel and c.language = u.language
    where u.state = 'claimed'
  )
  select
    (select json_agg(json_build_object(
      'id', replace(m.alert_id::text, '-', '') || '-' || m.number,
      'organisation_id', m.organisation_id,
      'attempt', m.attempt,
      'to', m.destination,
      'language', m.language,
      'subject', private.render(m.subject, m.name, m.external_id, m.attributes),
      'body', private.render(m.body, m.name, m.external_id, m.attributes),
      'html', private.render(m.html, m.name, m.external_id, m.attributes, true),
      'segments', m.segments,
      'expires_at', extract(epoch from m.expires_at)
    ) order by m.alert_id, m.number) from message m) as deliveries,
    (select count(*) from updated where state = 'claimed') as count,
    (select coalesce(sum(greatest(segments, 1)), 0) from updated where state = 'claimed') as segments,
    (select array_agg(alert_id order by alert_id, number) from updated where state = 'claimed') as alert_ids,
    (select array_agg(number order by alert_id, number) from updated where state = 'claimed') as numbers,
    (select jsonb_agg(r) from (
      select organisation_id, alert_id, sum(cost) as release
      from updated where state <> 'claimed' group by organisation_id, alert_id
    ) as r) as refunds,
    (select json_agg(q) from (select organisation_id, lane from queue) as q) as queues
  into v_claim;

  if v_claim.count > 0 then
    insert into private.leases (
      token, key, channel, kind, worker, due_at, claimed_at, open_count, alert_ids, numbers
    )
    values (
      v_lease, v_lease, p_channel, 'claim', p_worker, v_now + make_interval(secs => p_lease_seconds), v_now,
      v_claim.count, v_claim.alert_ids, v_claim.numbers
    );
    update private.senders set tokens = tokens - v_claim.segments where channel = p_channel;
  end if;
  perform private.put_away_queues(p_channel, v_claim.queues, v_now);
  perform private.settle_credits(v_claim.refunds, 'claim', v_lease::text);
  return json_build_object(
    'lease', case when v_claim.count > 0 then v_lease end,
    'lease_until', extract(epoch from v_now) + p_lease_seconds,
    'now', extract(epoch from v_now),
    'deliveries', coalesce(v_claim.deliveries, '[]'::json),
    'wait_seconds', (
      select greatest(0, extract(epoch from min(q.due_at) - v_now)) from private.queues q where q.channel = p_channel
    )
  );
end
$$;

-- each queue that was served goes to the end of its lane, with the instant of its next row; empty ones are put away.
-- Whoever feeds a queue holds its row until their deliveries are committed, so that none is put away too early
create function private.put_away_queues(p_channel public.channel, p_queues json, p_now timestamptz)
returns void
language plpgsql
set search_path = ''
set enable_seqscan = off
as $$
declare
  v_queue record;
  v_next timestamptz;
begin
  for v_queue in
    select q.organisation_id, q.lane
    from json_to_recordset(p_queues) as q (organisation_id uuid, lane smallint)
    order by q.organisation_id, q.lane
  loop
    perform from private.queues q
    where q.organisation_id = v_queue.organisation_id and q.channel = p_channel and q.lane = v_queue.lane
    for update;
    continue when not found;
    -- a statement of its own, so that it sees whatever was committed before the lock was ours
    select d.claimable_at into v_next
    from public.deliveries d
    where d.organisation_id = v_queue.organisation_id and d.channel = p_channel and d.lane = v_queue.lane
      and d.claimable_at is not null
    order by d.claimable_at
    limit 1;
    if found then
      update private.queues q
      set due_at = v_next, served_at = p_now
      where q.organisation_id = v_queue.organisation_id and q.channel = p_channel and q.lane = v_queue.lane;
    else
      delete from private.queues q
      where q.organisation_id = v_queue.organisation_id and q.channel = p_channel and q.lane = v_queue.lane;
    end if;
  end loop;
end
$$;

-- Record -------------------------------------------------------------------------------------------------------------

-- what came of the attempts under a lease: fenced by lease and attempt, settled in the same transaction.
-- outcome: accepted | found | absent | unknown | unclear | returned | a failure class
create function private.record_results(p_lease uuid, p_results jsonb)
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
  v_now timestamptz := clock_timestamp();
  v_lease private.leases;
  v_done record;
  v_queue record;
begin
  select * into v_lease from private.leases where token = p_lease for update;

  with result as materialized (
    select
      a.organisation_id, a.id as alert_id, a.expires_at, substr(r.id, 34)::integer as number, r.attempt, r.outcome,
      nullif(r.provider_id, '') as provider_id, left(r.code, 60) as code,
      coalesce(r.retry_after_seconds, 0) as retry_after_seconds,
      p.counts, p.max_failures, p.final_reason, p.base_seconds, p.max_seconds
    from jsonb_to_recordset(p_results) as r (
      id text, attempt integer, outcome text, provider_id text, code text, retry_after_seconds double precision
    )
    join public.alerts a on a.id = substr(r.id, 1, 32)::uuid
    left join private.failure_policies p on p.outcome = r.outcome
  ),
  locked as materialized (
    select r.*, d.state, d.failures, d.handed_over_at
    from result r
    join public.deliveries d using (organisation_id, alert_id, number)
    where d.lease = p_lease and d.attempt = r.attempt
    order by d.alert_id, d.number
    for update of d
  ),
  verdict as materialized (
    select
      l.*,
      case
        when l.outcome in ('accepted', 'found') then
          case when v_lease.channel = 'webhook' then 'delivered' else 'handed_over' end
        when l.outcome in ('unknown', 'unclear') then
          case when v_lease.tries >= 12 then 'dead_letter' else 'outcome_unknown' end
        when l.max_failures is null or l.failures + 1 < l.max_failures then 'planned'
        when l.max_failures is not null then 'failed'
      end::public.delivery_state as next,
      v_now + make_interval(secs => greatest(
        l.retry_after_seconds,
        least(l.max_seconds, l.base_seconds * power(2, least(l.failures, 20))) * (0.5 + random() / 2)
      )) as again_at
    from locked l
    where l.state in ('claimed', 'outcome_unknown')
  ),
  updated as (
    update public.deliveries d
    set
      state = v.next,
      reason = case when v.next = 'failed' then case when v.max_failures > 0 then 'exhausted' else v.final_reason end end,
      claimable_at = case when v.next = 'planned' then v.again_at end,
      failures = d.failures + case when v.counts then 1 else 0 end,
      state_changed_at = v_now,
      handed_over_at = case when v.next in ('handed_over', 'delivered') then v_now end,
      sent_at = case when v.next = 'delivered' then v_now end,
      delivered_at = case when v.next = 'delivered' then v_now end,
      provider_id = coalesce(v.provider_id, d.provider_id),
      failure_code = case when v.next in ('handed_over', 'delivered') then null else coalesce(v.code, d.failure_code) end
    from verdict v
    where d.organisation_id = v.organisation_id and d.alert_id = v.alert_id and d.number = v.number
    returning
      d.organisation_id, d.alert_id, d.number, d.lane, d.cost, d.state, d.attempt, d.claimable_at, d.destination_hash,
      v.outcome, v.provider_id, v.code, v.retry_after_seconds
  ),
  -- a receipt was faster than this answer: the row is further already, only the provider's id is still to be kept
  named as (
    update public.deliveries d
    set provider_id = l.provider_id
    from locked l
    where d.organisation_id = l.organisation_id and d.alert_id = l.alert_id and d.number = l.number
      and l.state not in ('claimed', 'outcome_unknown') and l.provider_id is not null and d.provider_id is null
    returning d.number
  ),
  written as (
    insert into public.delivery_events (organisation_id, alert_id, number, at, kind, state, attempt, provider_id, code)
    select
      organisation_id, alert_id, number, v_now,
      case
        when outcome in ('accepted', 'found') then 'accepted'
        when outcome = 'absent' then 'absent'
        when outcome in ('unknown', 'unclear') then 'unknown'
        else 'failed'
      end,
      state, attempt, provider_id, coalesce(code, outcome)
    from updated
    where outcome <> 'returned'
    returning number
  )
  select
    (select count(*) from updated) as recorded,
    (select count(*) from named) as named,
    (select jsonb_agg(c) from (
      select
        organisation_id, alert_id,
        sum(cost) filter (where state in ('handed_over', 'delivered')) as settle,
        sum(cost) filter (where state in ('failed', 'dead_letter')) as release
      from updated group by organisation_id, alert_id
    ) as c) as changes,
    (select array_agg(alert_id order by alert_id, number) from updated where state = 'outcome_unknown') as unknown_alerts,
    (select array_agg(number order by alert_id, number) from updated where state = 'outcome_unknown') as unknown_numbers,
    (select jsonb_agg(q) from (
      select organisation_id, lane, min(claimable_at) as due_at
      from updated where state = 'planned' group by organisation_id, lane
    ) as q) as queues,
    (select jsonb_agg(s) from (
      select distinct organisation_id, destination_hash from updated where outcome = 'opted_out'
    ) as s) as opted_out,
    (select array_agg(provider_id) from updated where provider_id is not null) as provider_ids,
    (select max(retry_after_seconds) from updated where outcome = 'throttle') as halt_seconds,
    (select max(code) from updated where outcome = 'configuration') as broken
  into v_done;

  for v_queue in
    select * from jsonb_to_recordset(v_done.queues) as q (organisation_id uuid, lane smallint, due_at timestamptz)
    order by organisation_id, lane
  loop
    perform private.feed_queue(v_queue.organisation_id, v_lease.channel, v_queue.lane, v_queue.due_at);
  end loop;
  perform private.close_lease(v_lease, v_done.recorded, v_done.unknown_alerts, v_done.unknown_numbers, v_now);
  perform private.suppress(s.organisation_id, s.destination_hash, v_lease.channel, 'opt_out', 'carrier')
  from jsonb_to_recordset(v_done.opted_out) as s (organisation_id uuid, destination_hash bytea);
  perform private.halt_sender(
    v_lease.channel, v_now, case when v_done.broken is not null then 30 else v_done.halt_seconds end, v_done.broken
  );
  perform private.settle_credits(v_done.changes, 'record', gen_random_uuid()::text);
  perform private.replay_receipts(v_done.provider_ids);
  return jsonb_build_object(
    'recorded', v_done.recorded, 'fenced', jsonb_array_length(p_results) - v_done.recorded - v_done.named
  );
end
$$;

-- recorded rows leave the lease; those in doubt go on under a new one that keeps the frozen key
create function private.close_lease(
  p_lease private.leases, p_recorded bigint, p_unknown_alerts uuid[], p_unknown_numbers integer[], p_now timestamptz
)
returns void
language plpgsql
set search_path = ''
as $$
begin
  if p_unknown_alerts is not null then
    insert into private.leases (
      token, key, channel, kind, worker, due_at, claimed_at, tries, open_count, alert_ids, numbers
    )
    values (
      gen_random_uuid(), p_lease.key, p_lease.channel, 'unknown', p_lease.worker,
      p_now + make_interval(secs => least(300, 2 * power(2, p_lease.tries))), p_lease.claimed_at, p_lease.tries + 1,
      cardinality(p_unknown_alerts), p_unknown_alerts, p_unknown_numbers
    );
  end if;
  update private.leases
  set open_count = greatest(0, open_count - p_recorded)
  where token = p_lease.token;
  delete from private.leases where token = p_lease.token and open_count = 0;
end
$$;

create function private.halt_sender(p_channel public.channel, p_now timestamptz, p_seconds double precision, p_code text)
returns void
language sql
set search_path = ''
as $$
  update private.senders
  set halted_until = greatest(halted_until, p_now + make_interval(secs => p_seconds)), halt_code = p_code
  where channel = p_channel and p_seconds > 0
$$;

-- Ask before a second send -------------------------------------------------------------------------------------------

-- one batch whose outcome nobody knows, leased to whoever will ask. `key` is the batch's frozen name, `since` the
-- instant before which no attempt began; a contact that is gone has no `to` and can only be settled by a receipt
create function private.claim_unknown(p_channel public.channel, p_lease_seconds integer, p_worker text)
returns json
language plpgsql
security definer
set search_path = ''
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_lease private.leases;
  v_token uuid := gen_random_uuid();
  v_deliveries json;
  v_count integer;
begin
  select * into v_lease
  from private.leases
  where kind = 'unknown' and channel = p_channel and due_at <= v_now
  order by due_at
  limit 1
  for update skip locked;
  if v_lease.token is null then
    return json_build_object('lease', null, 'deliveries', '[]'::json);
  end if;

  with locked as materialized (
    select d.organisation_id, d.alert_id, d.number
    from unnest(v_lease.alert_ids, v_lease.numbers) as w (alert_id, number)
    join public.alerts a on a.id = w.alert_id
    join public.deliveries d
      on d.organisation_id = a.organisation_id and d.alert_id = w.alert_id and d.number = w.number
    where d.state = 'outcome_unknown'
    order by d.alert_id, d.number
    for update of d
  ),
  updated as (
    update public.deliveries d
    set lease = v_token
    from locked l
    where d.organisation_id = l.organisation_id and d.alert_id = l.alert_id and d.number = l.number
    returning d.organisation_id, d.alert_id, d.number, d.attempt, d.contact_id, d.address_id, d.language, d.segments
  )
  select
    count(*),
    json_agg(json_build_object(
      'id', replace(u.alert_id::text, '-', '') || '-' || u.number,
      'organisation_id', u.organisation_id,
      'attempt', u.attempt,
      'to', a.value,
      'language', u.language,
      'subject', private.render(c.subject, person.name, person.external_id, person.attributes),
      'body', private.render(c.body, person.name, person.external_id, person.attributes),
      'html', private.render(c.html, person.name, person.external_id, person.attributes, true),
      'segments', u.segments,
      'expires_at', extract(epoch from alert.expires_at)
    ) order by u.alert_id, u.number)
  into v_count, v_deliveries
  from updated u
  join public.alerts alert on alert.organisation_id = u.organisation_id and alert.id = u.alert_id
  join private.alert_contents c
    on c.organisation_id = u.organisation_id and c.alert_id = u.alert_id
    and c.channel = p_channel and c.language = u.language
  left join public.contacts person
    on person.organisation_id = u.organisation_id and person.id = u.contact_id and person.restricted_at is null
  left join public.addresses a
    on a.organisation_id = u.organisation_id and a.id = u.address_id and a.contact_id = person.id;

  if v_count = 0 then
    -- receipts have settled all of it meanwhile
    delete from private.leases where token = v_lease.token;
  else
    update private.leases
    set token = v_token, worker = p_worker, open_count = v_count, due_at = v_now + make_interval(secs => p_lease_seconds)
    where token = v_lease.token;
  end if;
  return json_build_object(
    'lease', case when v_count > 0 then v_token end,
    'key', v_lease.key,
    'lease_until', extract(epoch from v_now) + p_lease_seconds,
    'now', extract(epoch from v_now),
    'since', extract(epoch from v_lease.claimed_at),
    'deliveries', coalesce(v_deliveries, '[]'::json)
  );
end
$$;

-- Sweep --------------------------------------------------------------------------------------------------------------

-- leases that ended: their rows were perhaps sent, so they are asked about, never simply sent again
create function private.sweep_leases(p_now timestamptz)
returns integer
language plpgsql
set search_path = ''
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
declare
  v_lease private.leases;
  v_rows integer;
  v_total integer := 0;
begin
  for v_lease in
    select * from private.leases
    where kind = 'claim' and due_at <= p_now
    order by due_at
    limit 100
    for update skip locked
  loop
    with locked as materialized (
      select d.organisation_id, d.alert_id, d.number
      from unnest(v_lease.alert_ids, v_lease.numbers) as w (alert_id, number)
      join public.alerts a on a.id = w.alert_id
      join public.deliveries d
        on d.organisation_id = a.organisation_id and d.alert_id = w.alert_id and d.number = w.number
      where d.state = 'claimed' and d.lease = v_lease.token
      order by d.alert_id, d.number
      for update of d
    )
    update public.deliveries d
    set state = 'outcome_unknown', state_changed_at = p_now
    from locked l
    where d.organisation_id = l.organisation_id and d.alert_id = l.alert_id and d.number = l.number;
    get diagnostics v_rows = row_count;
    v_total := v_total + v_rows;
    update private.leases
    set kind = 'unknown', due_at = p_now, open_count = v_rows
    where token = v_lease.token and v_rows > 0;
    delete from private.leases where token = v_lease.token and v_rows = 0;
  end loop;
  return v_total;
end
$$;

-- alerts past their time: what was not handed over expires and is refunded; what never got a receipt says so
create function private.sweep_alerts(p_now timestamptz, p_receipt_hours integer default 72)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_alert public.alerts;
  v_rows integer;
  v_refund bigint;
  v_total integer := 0;
begin
  for v_alert in
    select * from public.alerts
    where state = 'sending' and expires_at <= p_now
    order by expires_at
    limit 20
    for update skip locked
  loop
    with late as (
      update public.deliveries
      set state = 'expired', reason = 'expired', claimable_at = null, state_changed_at = p_now
      where organisation_id = v_alert.organisation_id and alert_id = v_alert.id and state in ('planned', 'held')
      returning cost
    )
    select count(*), sum(cost) into v_rows, v_refund from late;
    perform private.settle_credits(
      jsonb_build_array(jsonb_build_object(
        'organisation_id', v_alert.organisation_id, 'alert_id', v_alert.id, 'release', v_refund
      )),
      'expiry', gen_random_uuid()::text
    );
    v_total := v_total + v_rows;

    if v_alert.expires_at <= p_now - make_interval(hours => p_receipt_hours) then
      update public.deliveries
      set state = 'no_receipt', state_changed_at = p_now
      where organisation_id = v_alert.organisation_id and alert_id = v_alert.id and state in ('handed_over', 'sent');
    end if;
  end loop;
  return v_total;
end
$$;

-- an alert is complete when its whole reservation is settled or released
create function private.complete_alerts(p_now timestamptz)
returns integer
language sql
set search_path = ''
as $$
  with done as (
    update public.alerts a
    set state = 'completed', completed_at = p_now
    from public.credit_reservations r
    where a.state = 'sending'
      and r.organisation_id = a.organisation_id and r.alert_id = a.id and r.settled + r.released = r.amount
      and not exists (
        select from public.deliveries d
        where d.organisation_id = a.organisation_id and d.alert_id = a.id
          and d.state in ('planned', 'held', 'claimed', 'outcome_unknown')
      )
    returning a.id
  )
  select count(*)::integer from done
$$;

create function private.sweep_deliveries()
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  delete from private.dispatchers where alive_until <= v_now;
  return jsonb_build_object(
    'partitions_made', private.ensure_partitions(v_now),
    'outcome_unknown', private.sweep_leases(v_now),
    'expired', private.sweep_alerts(v_now),
    'completed', private.complete_alerts(v_now)
  );
end
$$;

-- Dispatchers --------------------------------------------------------------------------------------------------------

-- a place among at most p_limit dispatchers at work; asking again prolongs it
create function private.begin_dispatch(p_worker text, p_limit integer, p_lease_seconds integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_alive integer;
begin
  perform pg_advisory_xact_lock(hashtextextended('credoalert.dispatchers', 0));
  delete from private.dispatchers where alive_until <= clock_timestamp();
  select count(*) into v_alive from private.dispatchers where worker <> p_worker;
  if v_alive >= p_limit then
    return jsonb_build_object('admitted', false, 'alive', v_alive);
  end if;
  insert into private.dispatchers (worker, alive_until)
  values (p_worker, clock_timestamp() + make_interval(secs => p_lease_seconds))
  on conflict (worker) do update set alive_until = excluded.alive_until;
  return jsonb_build_object('admitted', true, 'alive', v_alive + 1);
end
$$;

create function private.end_dispatch(p_worker text)
returns jsonb
language sql
security definer
set search_path = ''
as $$
  with gone as (delete from private.dispatchers where worker = p_worker returning worker)
  select jsonb_build_object('ended', exists (select from gone))
$$;

-- which channels have something to do now, and in how many seconds there will be more
create function private.dispatch_backlog()
returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object(
    'due', (
      select coalesce(jsonb_agg(distinct channel), '[]')
      from (
        select q.channel from private.queues q where q.due_at <= clock_timestamp()
        union
        select l.channel from private.leases l where l.kind = 'unknown' and l.due_at <= clock_timestamp()
      ) as due
    ),
    'next_seconds', (
      select greatest(0, extract(epoch from min(at) - clock_timestamp()))
      from (
        select min(due_at) as at from private.queues
        union all
        select min(due_at) from private.leases
      ) as coming
    ),
    'dispatchers', (select count(*) from private.dispatchers where alive_until > clock_timestamp())
  )
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.claim_deliveries(p_channel public.channel, p_batch integer, p_lease_seconds integer, p_worker text)
returns json language sql security invoker set search_path = ''
begin atomic
  select private.claim_deliveries(p_channel, p_batch, p_lease_seconds, p_worker);
end;

create function public.claim_unknown(p_channel public.channel, p_lease_seconds integer, p_worker text)
returns json language sql security invoker set search_path = ''
begin atomic
  select private.claim_unknown(p_channel, p_lease_seconds, p_worker);
end;

create function public.record_results(p_lease uuid, p_results jsonb)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.record_results(p_lease, p_results);
end;

create function public.sweep_deliveries()
returns jsonb language sql security invoker set search_path = '' set statement_timeout = '60s'
begin atomic
  select private.sweep_deliveries();
end;

create function public.begin_dispatch(p_worker text, p_limit integer, p_lease_seconds integer)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.begin_dispatch(p_worker, p_limit, p_lease_seconds);
end;

create function public.end_dispatch(p_worker text)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.end_dispatch(p_worker);
end;

create function public.dispatch_backlog()
returns jsonb language sql stable security invoker set search_path = ''
begin atomic
  select private.dispatch_backlog();
end;

-- Access -------------------------------------------------------------------------------------------------------------

alter table private.senders enable row level security;
alter table private.leases enable row level security;
alter table private.failure_policies enable row level security;
alter table private.dispatchers enable row level security;

do $$
declare
  v_name text;
begin
  foreach v_name in array array[
    'claim_deliveries', 'claim_unknown', 'record_results', 'sweep_deliveries', 'begin_dispatch', 'end_dispatch',
    'dispatch_backlog'
  ]
  loop
    perform private.open_to('service_role', v_name);
  end loop;
end
$$;
