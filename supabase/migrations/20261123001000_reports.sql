-- Reports: what became of an alert, every figure from its rows.

-- Operations ---------------------------------------------------------------------------------------------------------

create function private.alert_report(p_organisation_id uuid, p_alert_id uuid)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_alert public.alerts;
  v_report jsonb;
begin
  perform private.authorise(p_organisation_id, 'deliveries.read');
  select * into v_alert from public.alerts where organisation_id = p_organisation_id and id = p_alert_id;
  if v_alert.id is null then
    perform private.refuse(404, 'alert_not_found', 'This organisation has no alert with this id.');
  end if;

  with cell as (
    select
      channel, country, state, reason, count(*) as rows, sum(segments) as segments, sum(cost) as credits,
      count(answered_at) as answered, count(*) filter (where attempt > 1) as tried_again
    from public.deliveries
    where organisation_id = p_organisation_id and alert_id = p_alert_id
    group by channel, country, state, reason
  ),
  wait as (
    select
      percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from handed_over_at - v_alert.created_at)) as accepted,
      percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from delivered_at - v_alert.created_at)) as delivered
    from public.deliveries
    where organisation_id = p_organisation_id and alert_id = p_alert_id and handed_over_at is not null
  )
  select jsonb_build_object(
    'alert_id', v_alert.id,
    'title', v_alert.title,
    'severity', v_alert.severity,
    'state', v_alert.state,
    'created_at', v_alert.created_at,
    'paths', coalesce(sum(rows), 0),
    'recipients', v_alert.answer -> 'recipients',
    'planned', v_alert.answer -> 'planned',
    'states', (select coalesce(jsonb_object_agg(state, rows), '{}') from (select state, sum(rows) as rows from cell group by state) as s),
    'skipped', (select coalesce(jsonb_object_agg(reason, rows), '{}') from (select reason, sum(rows) as rows from cell where state = 'skipped' group by reason) as s),
    'failed', (select coalesce(jsonb_object_agg(reason, rows), '{}') from (select reason, sum(rows) as rows from cell where state in ('failed', 'undelivered') group by reason) as s),
    'open', coalesce(sum(rows) filter (where state in ('planned', 'held', 'claimed', 'outcome_unknown')), 0),
    'awaiting_receipt', coalesce(sum(rows) filter (where state in ('handed_over', 'sent')), 0),
    'sent', coalesce(sum(rows) filter (where state in ('handed_over', 'sent', 'delivered', 'answered', 'undelivered', 'no_receipt')), 0),
    'delivered', coalesce(sum(rows) filter (where state in ('delivered', 'answered')), 0),
    'answered', coalesce(sum(answered), 0),
    'tried_again', coalesce(sum(tried_again), 0),
    'by_channel', (
      select coalesce(jsonb_object_agg(channel, jsonb_build_object(
        'paths', rows, 'skipped', skipped, 'sent', sent, 'delivered', delivered, 'failed', failed, 'answered', answered,
        'segments', segments, 'credits', credits
      )), '{}')
      from (
        select
          channel, sum(rows) as rows, sum(segments) as segments, sum(credits) as credits, sum(answered) as answered,
          coalesce(sum(rows) filter (where state = 'skipped'), 0) as skipped,
          coalesce(sum(rows) filter (where state in ('handed_over', 'sent', 'delivered', 'answered', 'undelivered', 'no_receipt')), 0) as sent,
          coalesce(sum(rows) filter (where state in ('delivered', 'answered')), 0) as delivered,
          coalesce(sum(rows) filter (where state in ('failed', 'undelivered', 'dead_letter', 'expired')), 0) as failed
        from cell group by channel
      ) as c
    ),
    'by_country', (
      select coalesce(jsonb_object_agg(country, jsonb_build_object('paths', rows, 'delivered', delivered, 'credits', credits)), '{}')
      from (
        select
          country, sum(rows) as rows, sum(credits) as credits,
          coalesce(sum(rows) filter (where state in ('delivered', 'answered')), 0) as delivered
        from cell where country is not null group by country
      ) as c
    ),
    'seconds_to_accept', (select jsonb_build_object('p50', accepted[1], 'p95', accepted[2]) from wait),
    'seconds_to_deliver', (select jsonb_build_object('p50', delivered[1], 'p95', delivered[2]) from wait)
  ) into v_report
  from cell;

  return v_report || jsonb_build_object('credits', coalesce((
    select jsonb_build_object('reserved', r.amount, 'settled', r.settled, 'released', r.released)
    from public.credit_reservations r
    where r.organisation_id = p_organisation_id and r.alert_id = p_alert_id
  ), jsonb_build_object('reserved', 0, 'settled', 0, 'released', 0)));
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.alert_report(p_organisation_id uuid, p_alert_id uuid)
returns jsonb language sql stable security invoker set search_path = '' set statement_timeout = '60s'
begin atomic
  select private.alert_report(p_organisation_id, p_alert_id);
end;

-- Access -------------------------------------------------------------------------------------------------------------

select private.open_to('authenticated', 'alert_report');
notify pgrst, 'reload schema';
