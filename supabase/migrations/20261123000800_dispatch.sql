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
  returning floor(tokens), case when tokens < 1 then (1 - tokens) / segments_per_second end
  into budget, wait_seconds;
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
    -- row by row: queues of equal turns are no peers, or none of them would fit into a small budget
    select
      c.*,
      sum(greatest(c.segments, 1)) over (
        order by c.lane, c.turn, c.served_at, c.organisation_id, c.number rows unbounded preceding
      ) as so_far
    from candidate c
  ),
  chosen as materialized (
    -- at least one, even when it alone is longer than the burst: the bucket goes below zero and refills
    select organisation_id, alert_id, number, lane, so_far
    from spent
    where so_far - greatest(segments, 1) < v_turn.budget
    order by lane, turn, served_at, organisation_id, number
    limit p_batch
  ),
  locked as materialized (
    select d.organisation_id, d.alert_id, d.number, d.contact_id, d.address_id, d.language
    from chosen c
    join public.deliveries d using (organisation_id, alert_id, number)
    -- coalesce keeps the claim index out of it: a kept plan would read all that is claimable for each row, not one by key
    where d.state = 'planned' and coalesce(d.claimable_at, 'infinity') <= v_now
    order by d.alert_id, d.number
    for update of d skip locked
  ),
  judged as materialized (
    select
      l.organisation_id, l.alert_id, l.number, l.language,
      person.name, person.external_id, person.attributes, a.id as address_id, a.value as destination, a.destination_hash,
      alert.expires_at,
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
    -- the address that was planned; the person's first one when that is gone (a correction, an import)
    left join lateral (
      select a.id, a.value, a.destination_hash
      from public.addresses a
      where a.organisation_id = l.organisation_id and a.contact_id = l.contact_id and a.kind = private.kind_for(p_channel)
      order by a.id = l.address_id desc, a.position, a.id
      limit 1
    ) as a on true
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
      address_id = coalesce(j.address_id, d.address_id),
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
    (select json_agg(q) from (
      select organisation_id, lane, (
        select max(c.so_far) from chosen c where c.organisation_id = queue.organisation_id and c.lane = queue.lane
      ) as served
      from queue
    ) as q) as queues
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
      -- null when nothing waits: greatest() would make that 0, and a dispatcher would ask for ever
      select extract(epoch from greatest(q.due_at, v_now) - v_now)
      from private.queues q
      where q.channel = p_channel
      order by q.due_at
      limit 1
    )
  );
end
$$;

-- each queue gets the instant of its next row; empty ones are put away. One that was served goes to the end of its lane, in
-- the order of the last rows: who got the last one of this claim waits longest, so that odd rows go round too.
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
    select q.organisation_id, q.lane, q.served
    from json_to_recordset(p_queues) as q (organisation_id uuid, lane smallint, served bigint)
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
      set due_at = v_next, served_at = coalesce(p_now + v_queue.served * interval '1 microsecond', q.served_at)
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
  v_doubt uuid := gen_random_uuid(); -- the lease of the rows whose outcome stays unknown
  v_done record;
  v_queue record;
begin
  select * into v_lease from private.leases where token = p_lease for update;

  with result as materialized (
    select
      a.organisation_id, a.id as alert_id, a.expires_at, substr(r.id, 34)::integer as number, r.attempt, r.outcome,
      nullif(r.provider_id, '') as provider_id, left(r.code, 60) as code,
      -- no provider's word stops us for longer than an hour
      least(coalesce(r.retry_after_seconds, 0), 3600) as retry_after_seconds,
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
        -- unknown, unclear, and any word without a policy: perhaps accepted
        when l.final_reason is null then
          case when v_lease.tries >= 12 then 'dead_letter' else 'outcome_unknown' end
        when l.max_failures is null or l.failures + 1 < l.max_failures then 'planned'
        else 'failed'
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
      lease = case when v.next = 'outcome_unknown' then v_doubt else d.lease end,
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
  -- a receipt was faster than this answer, or the answer is a repeat: the row is further already, only the provider's id
  -- is still to be kept
  overtaken as materialized (
    select l.*
    from locked l
    where l.state not in ('claimed', 'outcome_unknown')
  ),
  named as (
    update public.deliveries d
    set provider_id = o.provider_id
    from overtaken o
    where d.organisation_id = o.organisation_id and d.alert_id = o.alert_id and d.number = o.number
      and o.provider_id is not null and d.provider_id is null
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
    union all
    select organisation_id, alert_id, number, v_now, 'accepted', state, attempt, provider_id, coalesce(code, outcome)
    from overtaken o
    where outcome in ('accepted', 'found') and provider_id is not null and not exists (
      select from public.delivery_events e
      where e.organisation_id = o.organisation_id and e.alert_id = o.alert_id and e.number = o.number
        and e.kind = 'accepted' and e.provider_id = o.provider_id
    )
    returning provider_id
  )
  select
    (select count(*) from updated) as recorded,
    (select count(*) from overtaken) as overtaken,
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
    (select array_agg(provider_id) from written where provider_id is not null) as provider_ids,
    (select max(retry_after_seconds) from updated where outcome = 'throttle') as halt_seconds,
    (select max(code) from updated where outcome = 'configuration') as broken
  into v_done;

  -- the sender before the queues, as a claim does
  perform private.halt_sender(
    v_lease.channel, v_now, case when v_done.broken is not null then 30 else v_done.halt_seconds end, v_done.broken
  );
  for v_queue in
    select * from jsonb_to_recordset(v_done.queues) as q (organisation_id uuid, lane smallint, due_at timestamptz)
    order by organisation_id, lane
  loop
    perform private.feed_queue(v_queue.organisation_id, v_lease.channel, v_queue.lane, v_queue.due_at);
  end loop;
  perform private.close_lease(v_lease, v_done.recorded, v_doubt, v_done.unknown_alerts, v_done.unknown_numbers, v_now);
  perform private.suppress(s.organisation_id, s.destination_hash, v_lease.channel, 'opt_out', 'carrier')
  from jsonb_to_recordset(v_done.opted_out) as s (organisation_id uuid, destination_hash bytea)
  order by s.organisation_id, s.destination_hash;
  perform private.settle_credits(v_done.changes, 'record', gen_random_uuid()::text);
  perform private.replay_receipts(v_done.provider_ids);
  return jsonb_build_object(
    'recorded', v_done.recorded, 'fenced', jsonb_array_length(p_results) - v_done.recorded - v_done.overtaken
  );
end
$$;

-- recorded rows leave the lease; those in doubt go on under a new one that keeps the frozen key
create function private.close_lease(
  p_lease private.leases, p_recorded bigint, p_doubt uuid, p_unknown_alerts uuid[], p_unknown_numbers integer[],
  p_now timestamptz
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
      p_doubt, p_lease.key, p_lease.channel, 'unknown', p_lease.worker,
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

-- every alert of a channel goes through one provider account and stops with it; endpoints belong to the organisations
-- themselves, and one that asks for a pause stops nobody else's
create function private.halt_sender(p_channel public.channel, p_now timestamptz, p_seconds double precision, p_code text)
returns void
language sql
set search_path = ''
as $$
  update private.senders
  set halted_until = greatest(halted_until, p_now + make_interval(secs => p_seconds)), halt_code = p_code
  where channel = p_channel and p_seconds > 0 and p_channel <> 'webhook'
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

  with wanted as materialized (
    select a.organisation_id, w.alert_id, w.number
    from unnest(v_lease.alert_ids, v_lease.numbers) as w (alert_id, number)
    join public.alerts a on a.id = w.alert_id
  ),
  locked as materialized (
    select d.organisation_id, d.alert_id, d.number
    from wanted w
    join public.deliveries d using (organisation_id, alert_id, number)
    where d.state = 'outcome_unknown' and d.lease = v_lease.token
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

-- leases that ended: their rows were perhaps sent, so they are asked about, never simply sent again. All rows are locked
-- in one order, as everybody does who locks several
create function private.sweep_leases(p_now timestamptz)
returns integer
language sql
set search_path = ''
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $$
  with ended as materialized (
    select token, alert_ids, numbers
    from private.leases
    where kind = 'claim' and due_at <= p_now
    order by due_at
    limit 100
    for update skip locked
  ),
  wanted as materialized (
    select a.organisation_id, w.alert_id, w.number, e.token
    from ended e
    cross join lateral unnest(e.alert_ids, e.numbers) as w (alert_id, number)
    join public.alerts a on a.id = w.alert_id
  ),
  locked as materialized (
    select d.organisation_id, d.alert_id, d.number
    from wanted w
    join public.deliveries d using (organisation_id, alert_id, number)
    where d.state = 'claimed' and d.lease = w.token
    order by d.alert_id, d.number
    for update of d
  ),
  doubted as (
    update public.deliveries d
    set state = 'outcome_unknown', state_changed_at = p_now
    from locked l
    where d.organisation_id = l.organisation_id and d.alert_id = l.alert_id and d.number = l.number
    returning d.lease
  ),
  doubt as materialized (
    select lease, count(*) as rows from doubted group by lease
  ),
  kept as (
    update private.leases l
    set kind = 'unknown', due_at = p_now, open_count = doubt.rows
    from doubt
    where l.token = doubt.lease
    returning l.token
  ),
  gone as (
    delete from private.leases l
    using ended e
    where l.token = e.token and not exists (select from doubt where doubt.lease = e.token)
    returning l.token
  )
  select coalesce(sum(rows), 0)::integer from doubt
$$;

-- alerts past their time: what was not handed over expires and is refunded. Rows that somebody holds are passed over,
-- since whoever claims one later finds it expired; so nothing waits while credits are locked
create function private.sweep_alerts(p_now timestamptz)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_late record;
begin
  with ended as materialized (
    select organisation_id, id
    from public.alerts
    where state = 'sending' and expires_at <= p_now and expired_at is null
    order by expires_at
    limit 20
    for no key update skip locked
  ),
  marked as (
    update public.alerts a
    set expired_at = p_now
    from ended e
    where a.organisation_id = e.organisation_id and a.id = e.id
  ),
  locked as materialized (
    select d.organisation_id, d.alert_id, d.number
    from ended e
    join public.deliveries d on d.organisation_id = e.organisation_id and d.alert_id = e.id
    where d.state in ('planned', 'held')
    for update of d skip locked
  ),
  late as (
    update public.deliveries d
    set state = 'expired', reason = 'expired', claimable_at = null, state_changed_at = p_now
    from locked l
    where d.organisation_id = l.organisation_id and d.alert_id = l.alert_id and d.number = l.number
    returning d.organisation_id, d.alert_id, d.cost
  ),
  refund as (
    select organisation_id, alert_id, count(*) as rows, sum(cost) as release
    from late group by organisation_id, alert_id
  )
  select coalesce(sum(rows), 0)::integer as rows, jsonb_agg(refund) as changes
  into v_late
  from refund;
  perform private.settle_credits(v_late.changes, 'expiry', gen_random_uuid()::text);
  return v_late.rows;
end
$$;

-- alerts that ended long ago: what never got a receipt says so
create function private.close_receipts(p_now timestamptz, p_receipt_hours integer default 72)
returns integer
language sql
set search_path = ''
as $$
  with ended as materialized (
    select organisation_id, id
    from public.alerts
    where state = 'completed' and receipts_closed_at is null and expires_at <= p_now - make_interval(hours => p_receipt_hours)
    order by expires_at
    limit 20
    for no key update skip locked
  ),
  marked as (
    update public.alerts a
    set receipts_closed_at = p_now
    from ended e
    where a.organisation_id = e.organisation_id and a.id = e.id
  ),
  locked as materialized (
    select d.organisation_id, d.alert_id, d.number
    from ended e
    join public.deliveries d on d.organisation_id = e.organisation_id and d.alert_id = e.id
    where d.state in ('handed_over', 'sent')
    for update of d skip locked -- held by a receipt
  ),
  silent as (
    update public.deliveries d
    set state = 'no_receipt', state_changed_at = p_now
    from locked l
    where d.organisation_id = l.organisation_id and d.alert_id = l.alert_id and d.number = l.number
    returning d.number
  )
  select count(*)::integer from silent
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

-- one sweep at a time; another one that is under way does the work of both
create function private.sweep_deliveries()
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_swept jsonb := '{"partitions_made": 0, "outcome_unknown": 0, "expired": 0, "no_receipt": 0, "completed": 0, "replayed": 0}';
begin
  if not pg_try_advisory_xact_lock(hashtextextended('credoalert.sweep', 0)) then
    return v_swept;
  end if;
  delete from private.dispatchers where alive_until <= v_now;
  v_swept := v_swept || jsonb_build_object(
    'partitions_made', private.ensure_partitions(v_now),
    'outcome_unknown', private.sweep_leases(v_now)
  );
  -- rows are locked in one order only within a step, so a sweep takes one step that waits for rows
  if v_swept ->> 'outcome_unknown' = '0' then
    v_swept := v_swept || jsonb_build_object('replayed', private.replay_waiting(v_now));
  end if;
  return v_swept || jsonb_build_object(
    'expired', private.sweep_alerts(v_now),
    'no_receipt', private.close_receipts(v_now),
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
      select extract(epoch from greatest(at, clock_timestamp()) - clock_timestamp())
      from (
        select due_at as at from private.queues
        union all
        select due_at from private.leases
      ) as coming
      order by at
      limit 1
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
