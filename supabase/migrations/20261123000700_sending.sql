-- Sending: the quote and the fan-out of an alert, in one transaction with its reservation.

-- Tables -------------------------------------------------------------------------------------------------------------

-- who has something to be claimed: one row an organisation, channel and lane. Dispatchers take turns by it
create table private.queues (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  channel public.channel not null,
  lane smallint not null,
  due_at timestamptz not null,    -- nothing can be claimed before
  served_at timestamptz not null, -- whose turn it is
  primary key (organisation_id, channel, lane)
);
create index queues_turn on private.queues (channel, lane, served_at);

alter table private.queues enable row level security;

create function private.feed_queue(p_organisation_id uuid, p_channel public.channel, p_lane smallint, p_due_at timestamptz)
returns void
language sql
set search_path = ''
as $$
  insert into private.queues (organisation_id, channel, lane, due_at, served_at)
  values (p_organisation_id, p_channel, p_lane, p_due_at, clock_timestamp())
  on conflict (organisation_id, channel, lane) do update
  set due_at = least(queues.due_at, excluded.due_at)
$$;

-- Operations ---------------------------------------------------------------------------------------------------------

-- what a send would do and cost, by channel, country and reason; changes nothing that lasts
create function private.quote_alert(p_organisation_id uuid, p_alert jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
set work_mem = '256MB'
set enable_nestloop = on
set enable_hashjoin = on
set enable_seqscan = on
set enable_mergejoin = off
set enable_material = off
set jit = off
as $$
declare
  v_alert public.alerts;
  v_quote jsonb;
begin
  perform private.authorise(p_organisation_id, 'alerts.send');
  v_alert := private.make_alert(p_organisation_id, p_alert);
  perform private.size_audience(v_alert);

  with path as (
    select channel, country, state, reason, count(*) as rows, sum(segments) as segments, sum(cost) as credits
    from private.audience(v_alert)
    group by channel, country, state, reason
  )
  select jsonb_build_object(
    'alert_id', v_alert.id,
    'recipients', (sum(rows) / cardinality(v_alert.channels))::integer,
    'planned', coalesce(sum(rows) filter (where state = 'planned'), 0),
    'segments', coalesce(sum(segments), 0),
    'credits', coalesce(sum(credits), 0),
    'skipped', (
      select coalesce(jsonb_object_agg(reason, rows), '{}')
      from (select reason, sum(rows) as rows from path where state = 'skipped' and reason not in ('price_missing', 'variable_missing') group by reason) as s
    ),
    'by_channel_and_country', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'channel', channel, 'country', country, 'planned', rows, 'segments', segments, 'credits', credits
      ) order by channel, country), '[]')
      from path where state = 'planned'
    ),
    'prices_missing', (
      select jsonb_agg(jsonb_build_object('channel', channel, 'country', country, 'recipients', rows) order by channel, country)
      from path where reason = 'price_missing'
    ),
    'variable_missing', coalesce(bool_or(reason = 'variable_missing'), false),
    'have', coalesce((select available from public.credit_accounts where organisation_id = p_organisation_id), 0)
  ) into v_quote
  from path;

  perform private.refuse_missing_prices(nullif(v_quote -> 'prices_missing', 'null'));
  if (v_quote ->> 'variable_missing')::boolean then
    perform private.refuse_missing_values(v_alert);
  end if;
  -- a quote leaves no alert behind: the same id can be sent afterwards
  delete from public.alerts where organisation_id = p_organisation_id and id = v_alert.id;
  return v_quote - 'prices_missing' - 'variable_missing';
end
$$;

-- freezes the audience as deliveries, reserves what they cost and opens the queues, all or nothing.
-- A repeat of the same request returns the first answer; another request under the same id is refused (409)
create function private.send_alert(p_organisation_id uuid, p_alert jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
set work_mem = '256MB'
set enable_nestloop = on
set enable_hashjoin = on
set enable_seqscan = on
set enable_mergejoin = off
set enable_material = off
set jit = off
as $$
declare
  v_alert public.alerts;
  v_tally jsonb;
  v_answer jsonb;
begin
  perform private.authorise(p_organisation_id, 'alerts.send');

  -- two clicks on "send" at once: the second waits and gets the first answer
  perform pg_advisory_xact_lock(hashtextextended(p_alert ->> 'alert_id', 0));
  select * into v_alert
  from public.alerts
  where organisation_id = p_organisation_id and id = (p_alert ->> 'alert_id')::uuid;
  if v_alert.id is not null then
    if v_alert.request_hash = sha256(convert_to(p_alert::text, 'UTF8')) and v_alert.answer is not null then
      return v_alert.answer || '{"repeated": true}';
    end if;
    perform private.refuse(409, 'alert_id_taken', 'Another alert has this id: choose a new one.');
  end if;

  v_alert := private.make_alert(p_organisation_id, p_alert);
  perform private.size_audience(v_alert);

  with planned as (
    insert into public.deliveries (
      organisation_id, alert_id, number, contact_id, address_id, claimable_at, state_changed_at, cost, channel, state,
      step, lane, segments, country, language, reason, destination_hash, destination_tail
    )
    select
      v_alert.organisation_id, v_alert.id, a.number, a.contact_id, a.address_id,
      case when a.state = 'planned' then now() end, now(), a.cost, a.channel, a.state,
      a.step, v_alert.lane, a.segments, a.country, a.language, a.reason, a.destination_hash, a.destination_tail
    from private.audience(v_alert) as a
    returning channel, country, state, reason, segments, cost
  ),
  counted as (
    select channel, country, state, reason, count(*) as rows, sum(segments) as segments, sum(cost) as credits
    from planned
    group by channel, country, state, reason
  )
  select jsonb_build_object(
    'recipients', (sum(rows) / cardinality(v_alert.channels))::integer,
    'planned', coalesce(sum(rows) filter (where state = 'planned'), 0),
    'segments', coalesce(sum(segments), 0),
    'credits', coalesce(sum(credits), 0),
    'variable_missing', coalesce(bool_or(reason = 'variable_missing'), false),
    'channels', (select jsonb_agg(distinct channel) from counted where state = 'planned'),
    'skipped', (
      select coalesce(jsonb_object_agg(reason, rows), '{}')
      from (select reason, sum(rows) as rows from counted where state = 'skipped' group by reason) as s
    ),
    'prices_missing', (
      select jsonb_agg(jsonb_build_object('channel', channel, 'country', country, 'recipients', rows) order by channel, country)
      from counted where reason = 'price_missing'
    )
  ) into v_tally
  from counted;

  perform private.refuse_missing_prices(nullif(v_tally -> 'prices_missing', 'null'));
  if (v_tally ->> 'variable_missing')::boolean then
    perform private.refuse_missing_values(v_alert);
  end if;
  v_answer := jsonb_build_object(
    'alert_id', v_alert.id, 'recipients', v_tally -> 'recipients', 'planned', v_tally -> 'planned', 'skipped', v_tally -> 'skipped',
    'segments', v_tally -> 'segments', 'credits_reserved', v_tally -> 'credits'
  );
  update public.alerts
  set state = case when (v_tally ->> 'planned')::integer > 0 then 'sending' else 'completed' end::public.alert_state,
    completed_at = case when (v_tally ->> 'planned')::integer = 0 then now() end,
    answer = v_answer
  where organisation_id = p_organisation_id and id = v_alert.id;

  perform private.feed_queue(p_organisation_id, c::public.channel, v_alert.lane, now())
  from jsonb_array_elements_text(nullif(v_tally -> 'channels', 'null')) as c
  order by c;
  -- the account's row last: whoever else spends waits for milliseconds only
  perform private.reserve_credits(p_organisation_id, v_alert.id, (v_tally ->> 'credits')::bigint);
  return v_answer;
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.quote_alert(p_organisation_id uuid, p_alert jsonb)
returns jsonb language sql security invoker set search_path = '' set statement_timeout = '120s'
begin atomic
  select private.quote_alert(p_organisation_id, p_alert);
end;

create function public.send_alert(p_organisation_id uuid, p_alert jsonb)
returns jsonb language sql security invoker set search_path = '' set statement_timeout = '120s'
begin atomic
  select private.send_alert(p_organisation_id, p_alert);
end;

-- Access -------------------------------------------------------------------------------------------------------------

select private.open_to('authenticated', 'quote_alert');
select private.open_to('authenticated', 'send_alert');
