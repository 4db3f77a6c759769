-- Results: what came of the attempts under a lease, fenced, with the settlement in the same transaction.

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
    select
      r.*, d.state, d.failures, d.handed_over_at,
      -- an answer to a question about a doubt: what it names may be another delivery's, to the same number
      d.state = 'outcome_unknown' and r.outcome in ('accepted', 'found') and exists (
        select from public.delivery_events e
        where e.kind = 'accepted' and e.provider_id = r.provider_id
          and (e.alert_id <> r.alert_id or e.number <> r.number)
      ) as is_anothers
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
        when l.is_anothers then 'planned'
        when l.outcome in ('accepted', 'found') then
          case when v_lease.channel = 'webhook' then 'delivered' else 'handed_over' end
        -- a question that was not put or not answered leaves the doubt: planned again, it would go out under another key
        when l.state = 'outcome_unknown' and l.outcome in ('returned', 'throttle', 'transient', 'configuration') then
          'outcome_unknown'
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
      failures = d.failures + case when v.counts and v.next <> 'outcome_unknown' then 1 else 0 end,
      state_changed_at = v_now,
      handed_over_at = case when v.next in ('handed_over', 'delivered') then v_now end,
      sent_at = case when v.next = 'delivered' then v_now end,
      delivered_at = case when v.next = 'delivered' then v_now end,
      provider_id = case when v.is_anothers then d.provider_id else coalesce(v.provider_id, d.provider_id) end,
      failure_code = case when v.next in ('handed_over', 'delivered') then null else coalesce(v.code, d.failure_code) end
    from verdict v
    where d.organisation_id = v.organisation_id and d.alert_id = v.alert_id and d.number = v.number
    returning
      d.organisation_id, d.alert_id, d.number, d.lane, d.cost, d.state, d.attempt, d.claimable_at, d.destination_hash,
      v.outcome, case when not v.is_anothers then v.provider_id end as provider_id, v.code, v.retry_after_seconds, v.is_anothers
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
        when is_anothers or outcome = 'absent' then 'absent'
        when outcome in ('accepted', 'found') then 'accepted'
        when state = 'outcome_unknown' or outcome in ('unknown', 'unclear') then 'unknown'
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
    (select coalesce(bool_or(outcome in ('unknown', 'unclear')), false) from updated where state = 'outcome_unknown') as asked,
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
  perform private.close_lease(
    v_lease, v_done.recorded, v_doubt, v_done.unknown_alerts, v_done.unknown_numbers, v_done.asked, v_now
  );
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
  p_asked boolean, p_now timestamptz
)
returns void
language plpgsql
set search_path = ''
as $$
begin
  if p_unknown_alerts is not null then
    insert into private.leases (
      token, key, channel, kind, worker, due_at, claimed_at, doubted_at, tries, open_count, alert_ids, numbers
    )
    values (
      p_doubt, p_lease.key, p_lease.channel, 'unknown', p_lease.worker,
      p_now + make_interval(secs => least(300, 2 * power(2, p_lease.tries))), p_lease.claimed_at,
      coalesce(p_lease.doubted_at, p_now), p_lease.tries + case when p_asked then 1 else 0 end,
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

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.record_results(p_lease uuid, p_results jsonb)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.record_results(p_lease, p_results);
end;

-- Access -------------------------------------------------------------------------------------------------------------

select private.open_to('service_role', 'record_results');
