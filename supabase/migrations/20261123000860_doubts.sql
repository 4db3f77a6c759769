-- Doubts: what was perhaps accepted is asked about before a second send; and what was left behind is swept up.

-- Ask before a second send -------------------------------------------------------------------------------------------

-- one batch whose outcome nobody knows, leased to whoever will ask. `key` is the batch's frozen name, `since` the
-- instant before which no attempt began, `doubted_seconds` how long ago the last one can have begun; who is gone, has
-- opted out or has another address now has no `to`, and can only be settled by a receipt
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
    returning
      d.organisation_id, d.alert_id, d.number, d.attempt, d.contact_id, d.address_id, d.language, d.segments,
      d.destination_hash
  )
  select
    count(*),
    json_agg(json_build_object(
      'id', replace(u.alert_id::text, '-', '') || '-' || u.number,
      'organisation_id', u.organisation_id,
      'attempt', u.attempt,
      'to', a.value,
      'language', u.language,
      'subject', private.one_line(private.render(c.subject, person.name, person.external_id, person.attributes)),
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
    on a.organisation_id = u.organisation_id and a.id = u.address_id and a.contact_id = person.id
    and a.destination_hash = u.destination_hash
    and not exists (
      select from public.suppressions s
      where s.organisation_id = u.organisation_id and s.destination_hash = u.destination_hash
        and (s.channel is null or s.channel = p_channel)
    );

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
    'doubted_seconds', extract(epoch from v_now - coalesce(v_lease.doubted_at, v_now)),
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
    set kind = 'unknown', due_at = p_now, doubted_at = l.due_at, open_count = doubt.rows
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

-- alerts past their time: what was not handed over expires and is refunded, a portion a sweep, so that a sweep ends in
-- time. Rows that somebody holds are passed over: whoever claims one later finds it expired
create function private.sweep_alerts(p_now timestamptz, p_portion integer default 20000)
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
  locked as materialized (
    select d.organisation_id, d.alert_id, d.number
    from ended e
    join public.deliveries d on d.organisation_id = e.organisation_id and d.alert_id = e.id
    where d.state in ('planned', 'held')
    limit p_portion
    for update of d skip locked
  ),
  marked as (
    update public.alerts a
    set expired_at = p_now
    from ended e
    where a.organisation_id = e.organisation_id and a.id = e.id and (select count(*) from locked) < p_portion
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

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.claim_unknown(p_channel public.channel, p_lease_seconds integer, p_worker text)
returns json language sql security invoker set search_path = ''
begin atomic
  select private.claim_unknown(p_channel, p_lease_seconds, p_worker);
end;

create function public.sweep_deliveries()
returns jsonb language sql security invoker set search_path = '' set statement_timeout = '60s'
begin atomic
  select private.sweep_deliveries();
end;

-- Access -------------------------------------------------------------------------------------------------------------

select private.open_to('service_role', 'claim_unknown');
select private.open_to('service_role', 'sweep_deliveries');
