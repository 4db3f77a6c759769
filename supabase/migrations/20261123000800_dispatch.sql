-- Dispatch: who may send what next, under a lease, at the sender's pace; and how many dispatchers are at work.

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
  doubted_at timestamptz,          -- unknown: no attempt of this batch can have begun after
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
  -- failures of other kinds don't lengthen it: the provider's Retry-After and the pace of the dispatchers do the waiting
  ('throttle', false, null, 'exhausted', 1, 1),
  -- hours, since what ends a message is that it expires, not a provider that is away for a while
  ('transient', true, 50, 'exhausted', 2, 300),
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
      'subject', private.one_line(private.render(m.subject, m.name, m.external_id, m.attributes)),
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

select private.open_to('service_role', 'claim_deliveries');
select private.open_to('service_role', 'begin_dispatch');
select private.open_to('service_role', 'end_dispatch');
select private.open_to('service_role', 'dispatch_backlog');
