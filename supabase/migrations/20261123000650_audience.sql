-- Audience: an alert with its texts pinned, and everybody it is for, each explained: planned with a price, or skipped.

-- Making -------------------------------------------------------------------------------------------------------------

-- checks what was asked and writes the alert as quoted; refuses with 404 what is not the organisation's
create function private.make_alert(p_organisation_id uuid, p_alert jsonb)
returns public.alerts
language plpgsql
set search_path = ''
as $$
declare
  v_alert public.alerts;
  v_missing uuid;
begin
  v_alert.organisation_id := p_organisation_id;
  v_alert.id := (p_alert ->> 'alert_id')::uuid;
  v_alert.title := p_alert ->> 'title';
  v_alert.template_id := (p_alert ->> 'template_id')::uuid;
  v_alert.expires_at := coalesce((p_alert ->> 'expires_at')::timestamptz, now() + interval '24 hours');
  v_alert.group_ids := array(select distinct e::uuid from jsonb_array_elements_text(coalesce(nullif(p_alert -> 'group_ids', 'null'), '[]')) as e);
  v_alert.contact_ids := array(select distinct e::uuid from jsonb_array_elements_text(coalesce(nullif(p_alert -> 'contact_ids', 'null'), '[]')) as e);
  v_alert.request_hash := sha256(convert_to(p_alert::text, 'UTF8'));

  if v_alert.id is null or abs(extract(epoch from private.time_of(v_alert.id) - now())) is distinct from
    least(abs(extract(epoch from private.time_of(v_alert.id) - now())), 86400) then
    perform private.refuse(422, 'alert_id_invalid', 'Choose a new UUID version 7 (RFC 9562), made within the last day.');
  end if;
  if char_length(coalesce(v_alert.title, '')) not between 1 and 200 or not private.is_clean(v_alert.title) then
    perform private.refuse(422, 'title_invalid', 'A title has 1 to 200 characters and no control characters.');
  end if;
  if coalesce(p_alert ->> 'severity', '') not in ('critical', 'urgent', 'normal') then
    perform private.refuse(422, 'severity_unknown', 'A severity is critical, urgent or normal.');
  end if;
  v_alert.severity := p_alert ->> 'severity';
  if v_alert.expires_at <= now() then
    perform private.refuse(422, 'expiry_past', 'expires_at is in the past: nothing could be delivered.');
  end if;
  if v_alert.expires_at > now() + interval '366 days' then
    perform private.refuse(422, 'expiry_too_late', 'expires_at is more than a year away.');
  end if;
  if jsonb_typeof(p_alert -> 'channels') is distinct from 'array' or exists (
    select from jsonb_array_elements_text(p_alert -> 'channels') as c
    where c not in ('sms', 'voice', 'email', 'webhook')
  ) then
    perform private.refuse(422, 'channel_unknown', 'Give channels among sms, voice, email and webhook.');
  end if;
  v_alert.channels := array(select e::public.channel from jsonb_array_elements_text(p_alert -> 'channels') as e);
  if cardinality(v_alert.channels) = 0
    or cardinality(v_alert.channels) <> (select count(distinct c) from unnest(v_alert.channels) as c) then
    perform private.refuse(422, 'channels_invalid', 'Give each channel once, and at least one.');
  end if;

  select t.version into v_alert.template_version
  from public.templates t
  where t.organisation_id = p_organisation_id and t.id = v_alert.template_id;
  if v_alert.template_version is null then
    perform private.refuse(404, 'template_not_found', 'This organisation has no template with this id.');
  end if;
  select w into v_missing
  from unnest(v_alert.group_ids) as w
  where not exists (select from public.groups g where g.organisation_id = p_organisation_id and g.id = w)
  limit 1;
  if v_missing is not null then
    perform private.refuse(
      404, 'group_not_found', 'This organisation has no group with this id.', jsonb_build_object('group_id', v_missing)
    );
  end if;
  select w into v_missing
  from unnest(v_alert.contact_ids) as w
  where not exists (select from public.contacts c where c.organisation_id = p_organisation_id and c.id = w)
  limit 1;
  if v_missing is not null then
    perform private.refuse(
      404, 'contact_not_found', 'This organisation has no contact with this id.', jsonb_build_object('contact_id', v_missing)
    );
  end if;

  begin
    insert into public.alerts (
      organisation_id, id, title, severity, state, channels, template_id, template_version, price_version,
      group_ids, contact_ids, expires_at, request_hash, created_by
    )
    values (
      p_organisation_id, v_alert.id, v_alert.title, v_alert.severity, 'quoted', v_alert.channels, v_alert.template_id,
      v_alert.template_version, private.price_version(), v_alert.group_ids, v_alert.contact_ids, v_alert.expires_at,
      v_alert.request_hash, auth.uid()
    )
    returning * into v_alert;
  exception when unique_violation then
    perform private.refuse(409, 'alert_id_taken', 'Another alert has this id: choose a new one.');
  end;
  perform private.pin_contents(v_alert, coalesce(nullif(p_alert -> 'variables', 'null'), '{}'));
  return v_alert;
end
$$;

-- the texts of the pinned version, parsed, with the alert's own values in; every channel must have one
create function private.pin_contents(p_alert public.alerts, p_variables jsonb)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_silent public.channel;
begin
  insert into private.alert_contents (organisation_id, alert_id, channel, language, subject, body, html)
  select
    c.organisation_id, p_alert.id, c.channel, c.language,
    private.fill(private.parse_text(c.subject), p_variables),
    private.fill(private.parse_text(c.body), p_variables),
    private.fill(private.parse_text(c.html), p_variables, true)
  from public.template_contents c
  where c.organisation_id = p_alert.organisation_id
    and c.template_id = p_alert.template_id
    and c.version = p_alert.template_version
    and c.channel = any (p_alert.channels);

  update private.alert_contents c
  set
    segments = case
      when channel = 'sms' and cardinality((body).variables) = 0 then private.sms_segments((body).literals[1])
    end,
    ascii_size = case when channel = 'sms' then private.sms_fixed_size(array_to_string((body).literals, '')) end,
    needed = (
      select array_agg(n.variable)
      from (
        select private.needed_variables(c.body)
        union select private.needed_variables(c.subject)
        union select private.needed_variables(c.html)
      ) as n (variable)
      where n.variable <> 'name'
    )
  where organisation_id = p_alert.organisation_id and alert_id = p_alert.id;

  select w into v_silent
  from unnest(p_alert.channels) as w
  where not exists (
    select from private.alert_contents c
    where c.organisation_id = p_alert.organisation_id and c.alert_id = p_alert.id and c.channel = w
  )
  limit 1;
  if v_silent is not null then
    perform private.refuse(
      422, 'content_missing', format('The template has no content for the channel %s.', v_silent),
      jsonb_build_object('channel', v_silent)
    );
  end if;
end
$$;

-- Audience -----------------------------------------------------------------------------------------------------------

-- the people an alert is for, once each
create function private.people(p_alert public.alerts)
returns setof uuid
language sql
stable
set search_path = ''
as $$
  select m.contact_id
  from public.group_members m
  where m.organisation_id = p_alert.organisation_id and m.group_id = any (p_alert.group_ids)
  union
  select unnest(p_alert.contact_ids)
$$;

-- every path of an alert, explained: planned with its price, or skipped with its reason. One row a person and channel;
-- of several addresses the first usable one; of several people on one destination the first person only.
-- SMS segments come without rendering where they can: the fixed part was measured once (ascii_size: GSM septets, or minus
-- its UTF-16 units), plain values only add their length; anything else is rendered and measured whole.
-- Written for 100,000 rows at once (make bench): nothing is looked up twice, rows stay narrow until the end, and joins that
-- find nearly everything are left joins, whose size the planner knows
create function private.audience(p_alert public.alerts)
returns table (
  number bigint, contact_id uuid, step smallint, channel public.channel, language text, address_id uuid, country text,
  destination_hash bytea, destination_tail text, segments smallint, cost integer, state public.delivery_state, reason text
)
language sql
stable
rows 100000
set search_path = ''
as $$
  with step as materialized (
    select
      s.channel, s.position::smallint as step, private.kind_for(s.channel) as kind,
      -- which pinned language speaks to whom: exact, then base, then the organisation's own, then any
      said.exact, said.base, said.usual
    from unnest(p_alert.channels) with ordinality as s (channel, position)
    cross join lateral (
      select
        jsonb_object_agg(c.language, c.language) as exact,
        jsonb_object_agg(split_part(c.language, '-', 1), c.language order by c.language = o.language, c.language desc) as base,
        (array_agg(c.language order by c.language = o.language desc, c.language))[1] as usual
      from private.alert_contents c
      join public.organisations o on o.id = c.organisation_id
      where c.organisation_id = p_alert.organisation_id and c.alert_id = p_alert.id and c.channel = s.channel
    ) as said
    limit 4
  ),
  said as materialized (
    select
      c.channel, c.language, c.body, c.segments, c.ascii_size, c.needed,
      -- the usual text has few variables: their values are joined right here, far cheaper than a call for each row
      c.channel = 'sms' and c.segments is null and c.ascii_size is not null
        and cardinality((c.body).variables) <= 4 as is_short,
      (c.body).variables[1] as v1, (c.body).variables[2] as v2, (c.body).variables[3] as v3, (c.body).variables[4] as v4,
      (c.body).fallbacks[1] as f1, (c.body).fallbacks[2] as f2, (c.body).fallbacks[3] as f3, (c.body).fallbacks[4] as f4
    from private.alert_contents c
    where c.organisation_id = p_alert.organisation_id and c.alert_id = p_alert.id
  ),
  person as (
    select c.id, c.language, c.restricted_at, c.name, c.external_id, c.attributes
    from public.contacts c
    where c.organisation_id = p_alert.organisation_id and c.id in (
      select m.contact_id
      from public.group_members m
      where m.organisation_id = p_alert.organisation_id and m.group_id = any (p_alert.group_ids)
    )
    union all
    select c.id, c.language, c.restricted_at, c.name, c.external_id, c.attributes
    from public.contacts c
    where c.organisation_id = p_alert.organisation_id and c.id = any (p_alert.contact_ids) and not exists (
      select
      from public.group_members m
      where m.organisation_id = p_alert.organisation_id and m.group_id = any (p_alert.group_ids) and m.contact_id = c.id
    )
  ),
  heard as (
    select
      person.*, step.step, step.channel, step.kind,
      coalesce(step.exact ->> person.language, step.base ->> split_part(person.language, '-', 1), step.usual) as spoken
    from person
    cross join step
  ),
  -- the first usable address of each person and step
  path as (
    select distinct on (c.id, c.step)
      c.id as contact_id, c.restricted_at is not null as restricted, c.step, c.channel, said.language,
      a.id as address_id, a.country, a.destination_hash, right(a.value, 4) as destination_tail,
      said.segments, said.ascii_size, blocked.reason as blocked,
      said.needed is not null and exists (
        select from unnest(said.needed) as n
        where coalesce(case n when 'external_id' then c.external_id else c.attributes ->> n end, '') = ''
      ) as lacks_value,
      case
        when said.is_short then
          coalesce(nullif(case said.v1 when 'name' then c.name when 'external_id' then c.external_id else c.attributes ->> said.v1 end, ''), said.f1, '')
          || coalesce(nullif(case said.v2 when 'name' then c.name when 'external_id' then c.external_id else c.attributes ->> said.v2 end, ''), said.f2, '')
          || coalesce(nullif(case said.v3 when 'name' then c.name when 'external_id' then c.external_id else c.attributes ->> said.v3 end, ''), said.f3, '')
          || coalesce(nullif(case said.v4 when 'name' then c.name when 'external_id' then c.external_id else c.attributes ->> said.v4 end, ''), said.f4, '')
      end as values
    from heard c
    left join said on said.channel = c.channel and said.language = c.spoken
    left join public.addresses a on a.organisation_id = p_alert.organisation_id and a.contact_id = c.id and a.kind = c.kind
    left join public.suppressions blocked
      on blocked.organisation_id = p_alert.organisation_id and blocked.destination_hash = a.destination_hash
      and (blocked.channel is null or blocked.channel = c.channel)
    order by c.id, c.step, blocked.reason is not null, a.position, a.id, blocked.reason
  ),
  -- in the order of destinations, so that those who share one are neighbours: the first person keeps it
  numbered as (
    select
      path.*, row_number() over in_order as number,
      lag(path.destination_hash) over in_order = path.destination_hash and lag(path.step) over in_order = path.step as is_repeat
    from path
    window in_order as (order by destination_hash, step, restricted or blocked is not null, contact_id)
  ),
  priced as (
    select
      n.*, price.credits_per_unit,
      case
        when n.restricted then 'restricted'
        when n.address_id is null then 'no_address'
        when n.blocked = 'opt_out' then 'opted_out'
        when n.blocked is not null then 'suppressed'
        when n.is_repeat then 'duplicate_path'
        when price.credits_per_unit is null then 'price_missing'
        when n.lacks_value then 'variable_missing'
      end as why
    from numbered n
    left join public.prices price
      on price.version = p_alert.price_version and price.channel = n.channel and price.country = n.country
    offset 0
  ),
  sized as (
    select
      p.*,
      case
        when why is not null then 0
        when channel <> 'sms' then 1
        when segments is not null then segments
        when ascii_size < 0 and values !~ U&'[\+010000-\+10FFFF]' then
          case when length(values) - ascii_size <= 70 then 1 else (length(values) - ascii_size + 66) / 67 end
        when values ~ '^[\n\r !"#$%&''()*+,\-./0-9:;<=>?@A-Z_a-zÄÅÆÇÉÑÖØÜßàäåæèéìñòöøùü¡£¤¥§¿ΓΔΘΛΞΠΣΦΨΩ]*$' then
          case when ascii_size + length(values) <= 160 then 1 else (ascii_size + length(values) + 152) / 153 end
        else (
          select private.sms_segments(private.render(said.body, c.name, c.external_id, c.attributes))
          from public.contacts c
          cross join said
          where c.organisation_id = p_alert.organisation_id and c.id = p.contact_id
            and said.channel = p.channel and said.language = p.language
          limit 1
        )
      end as size
    from priced p
    offset 0
  )
  select
    number, contact_id, step, channel, language, address_id, country, destination_hash,
    destination_tail, size::smallint, coalesce(size * credits_per_unit, 0),
    case when why is null then 'planned' else 'skipped' end::public.delivery_state, why
  from sized
$$;

-- who lacks a value that the text needs; names contacts by id, never by what we hold of them
create function private.refuse_missing_values(p_alert public.alerts)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_missing jsonb;
begin
  with lacking as (
    select distinct a.contact_id, n as variable
    from private.audience(p_alert) as a
    join private.alert_contents c
      on c.organisation_id = p_alert.organisation_id and c.alert_id = p_alert.id
      and c.channel = a.channel and c.language = a.language
    join public.contacts person on person.organisation_id = p_alert.organisation_id and person.id = a.contact_id
    cross join unnest(c.needed) as n
    where a.reason = 'variable_missing'
      and coalesce(case n when 'external_id' then person.external_id else person.attributes ->> n end, '') = ''
    order by a.contact_id, n
    limit 21
  )
  select jsonb_agg(jsonb_build_object('contact_id', contact_id, 'variable', variable))
  into v_missing
  from lacking;

  perform private.refuse(
    422, 'variable_missing',
    'Some contacts lack a value that the template needs: fill it in, give a fallback, or leave these contacts out.',
    jsonb_build_object(
      'contacts', (select jsonb_agg(e) from jsonb_array_elements(v_missing) with ordinality as m (e, n) where n <= 20),
      'more', jsonb_array_length(v_missing) > 20
    )
  );
end
$$;

-- an upper bound of the audience, cheap: people in several groups count several times
create function private.audience_bound(p_alert public.alerts)
returns bigint
language sql
stable
set search_path = ''
as $$
  select cardinality(p_alert.contact_ids) + (
    select count(*)
    from public.group_members m
    where m.organisation_id = p_alert.organisation_id and m.group_id = any (p_alert.group_ids)
  )
$$;

-- 1 to max_recipients people, or a refusal with the figures. A large audience is joined in sets, a small one by index
create function private.size_audience(p_alert public.alerts)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_bound bigint := private.audience_bound(p_alert);
  v_limit integer;
  v_people bigint;
begin
  select max_recipients into v_limit from public.organisations where id = p_alert.organisation_id;
  if v_bound > v_limit then
    select count(*) into v_people from private.people(p_alert);
    if v_people > v_limit then
      perform private.refuse(
        422, 'audience_too_large', format('The audience has %s people; the organisation''s limit is %s.', v_people, v_limit),
        jsonb_build_object('recipients', v_people, 'limit', v_limit)
      );
    end if;
  end if;
  if v_bound = 0 then
    perform private.refuse(422, 'audience_empty', 'Nobody is in these groups: add contacts or choose others.');
  end if;
  -- the planner can't see which group it is: say it
  perform
    set_config('enable_nestloop', case when v_bound > 1000 then 'off' else 'on' end, true),
    set_config('enable_hashjoin', case when v_bound > 1000 then 'on' else 'off' end, true),
    set_config('enable_seqscan', case when v_bound > 1000 then 'on' else 'off' end, true);
end
$$;

create function private.refuse_missing_prices(p_missing jsonb)
returns void
language plpgsql
set search_path = ''
as $$
begin
  if p_missing is not null then
    perform private.refuse(
      422, 'price_missing', 'The price list has no price for some countries: leave these contacts out or ask for a price.',
      jsonb_build_object('prices', p_missing)
    );
  end if;
end
$$;
