-- Imports: contacts in chunks, refused by row and column, never half-done.

-- Operations ---------------------------------------------------------------------------------------------------------

-- one chunk of an import: new people and known ones (by external id) in sets; an import never lifts a suppression.
-- the rows arrive normalised; what a constraint would still refuse is reported by row and column, not raised
create function private.import_contacts(p_organisation_id uuid, p_contacts jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_answer jsonb;
begin
  perform private.authorise(p_organisation_id, 'contacts.write');
  if jsonb_typeof(p_contacts) is distinct from 'array' or jsonb_array_length(p_contacts) > 5000 then
    perform private.refuse(422, 'import_chunk_invalid', 'Give an array of at most 5,000 contacts.');
  end if;

  -- two imports at once could both make the same person
  perform pg_advisory_xact_lock(hashtextextended('credoalert.import:' || p_organisation_id, 0));

  create temporary table if not exists import_rows (
    row_number integer, id uuid, external_id text, name text, language text, time_zone text, tags text[],
    attributes jsonb, group_ids uuid[], addresses jsonb, reason text, column_name text
  ) on commit drop;
  truncate pg_temp.import_rows;

  insert into pg_temp.import_rows
  select
    r.ordinality, null, r.value ->> 'external_id', r.value ->> 'name', r.value ->> 'language',
    r.value ->> 'time_zone',
    -- only what has no fault is read: the rest need not even have the right shape
    array(select jsonb_array_elements_text(nullif(r.value -> 'tags', 'null')) where f.reason is null),
    coalesce(nullif(r.value -> 'attributes', 'null'), '{}'),
    array(select jsonb_array_elements_text(nullif(r.value -> 'group_ids', 'null'))::uuid where f.reason is null),
    coalesce(nullif(r.value -> 'addresses', 'null'), '[]'),
    f.reason, f.column_name
  from jsonb_array_elements(p_contacts) with ordinality as r (value, ordinality)
  cross join lateral private.import_fault(p_organisation_id, r.value) as f;

  -- the same external id twice in one chunk: the first stands
  update pg_temp.import_rows r
  set reason = 'repeats an earlier row of this import', column_name = 'external_id'
  from pg_temp.import_rows earlier
  where r.reason is null and earlier.reason is null
    and earlier.external_id = r.external_id and earlier.row_number < r.row_number;

  update pg_temp.import_rows r
  set id = coalesce((
    select c.id from public.contacts c
    where c.organisation_id = p_organisation_id and c.external_id = r.external_id
  ), null)
  where r.reason is null;

  with updated as (
    update public.contacts c
    set name = r.name, language = r.language, time_zone = r.time_zone, tags = r.tags, attributes = r.attributes
    from pg_temp.import_rows r
    where c.organisation_id = p_organisation_id and c.id = r.id and r.reason is null
    returning c.id
  ),
  refused as (
    select coalesce(jsonb_agg(jsonb_build_object(
      'row', row_number, 'column', column_name, 'reason', reason
    ) order by row_number), '[]') as rows
    from pg_temp.import_rows
    where reason is not null
  )
  select jsonb_build_object(
    'updated', (select count(*) from updated),
    'created', (select count(*) from pg_temp.import_rows where id is null and reason is null),
    'refused', (select rows from refused)
  ) into v_answer;

  update pg_temp.import_rows
  set id = private.new_id()
  where id is null and reason is null;

  insert into public.contacts (organisation_id, id, external_id, name, language, time_zone, tags, attributes)
  select p_organisation_id, r.id, r.external_id, r.name, r.language, r.time_zone, r.tags, r.attributes
  from pg_temp.import_rows r
  where r.reason is null
  order by r.row_number
  on conflict (organisation_id, id) do nothing;

  -- the file says which addresses a person has now; an unchanged one keeps its id, which running alerts point at
  delete from public.addresses a
  using pg_temp.import_rows r
  where r.reason is null and a.organisation_id = p_organisation_id and a.contact_id = r.id
    and not exists (
      select from jsonb_array_elements(r.addresses) as e
      where e ->> 'kind' = a.kind::text and e ->> 'value' = a.value
    );
  insert into public.addresses (organisation_id, contact_id, kind, value, position)
  select distinct on (r.id, e.value ->> 'kind', e.value ->> 'value')
    p_organisation_id, r.id, (e.value ->> 'kind')::public.address_kind, e.value ->> 'value',
    coalesce((e.value ->> 'position')::smallint, e.ordinality::smallint)
  from pg_temp.import_rows r
  cross join lateral jsonb_array_elements(r.addresses) with ordinality as e (value, ordinality)
  where r.reason is null
  on conflict (organisation_id, contact_id, kind, value) do update
  set position = excluded.position
  where addresses.position <> excluded.position;

  insert into public.group_members (organisation_id, group_id, contact_id)
  select distinct p_organisation_id, g.id, r.id
  from pg_temp.import_rows r
  cross join lateral unnest(r.group_ids) as g (id)
  where r.reason is null
  on conflict do nothing;
  return v_answer;
end
$$;

-- why a row of an import can't be taken, by column; no row when it can
create function private.import_fault(p_organisation_id uuid, p_row jsonb, out reason text, out column_name text)
language plpgsql
stable
set search_path = ''
as $$
begin
  if jsonb_typeof(p_row) is distinct from 'object' then
    reason := 'is not an object'; column_name := null;
  elsif char_length(coalesce(p_row ->> 'name', '')) not between 1 and 200 or not private.is_clean(p_row ->> 'name') then
    reason := 'must have 1 to 200 characters and no control characters'; column_name := 'name';
  elsif char_length(p_row ->> 'external_id') not between 1 and 200 or not private.is_clean(p_row ->> 'external_id') then
    reason := 'must have 1 to 200 characters and no control characters'; column_name := 'external_id';
  elsif p_row ->> 'language' !~ '^[a-z]{2}(-[A-Z]{2})?$' then
    reason := 'must be a language such as fr or en-GB'; column_name := 'language';
  elsif char_length(p_row ->> 'time_zone') not between 1 and 64 then
    reason := 'must be a time zone such as Europe/Paris'; column_name := 'time_zone';
  elsif jsonb_typeof(coalesce(p_row -> 'tags', '[]')) not in ('array', 'null')
    or jsonb_array_length(case when jsonb_typeof(p_row -> 'tags') = 'array' then p_row -> 'tags' else '[]' end) > 50 then
    reason := 'must be at most 50 texts'; column_name := 'tags';
  elsif jsonb_typeof(coalesce(p_row -> 'attributes', '{}')) not in ('object', 'null')
    or pg_column_size(p_row -> 'attributes') > 16384 then
    reason := 'must be an object of at most 16 KiB'; column_name := 'attributes';
  elsif jsonb_typeof(coalesce(p_row -> 'group_ids', '[]')) not in ('array', 'null') or exists (
    select
    from jsonb_array_elements_text(
      case when jsonb_typeof(p_row -> 'group_ids') = 'array' then p_row -> 'group_ids' else '[]' end
    ) as wanted
    where not exists (
      select from public.groups g
      where g.organisation_id = p_organisation_id and g.id::text = lower(wanted)
    )
  ) then
    reason := 'names a group that this organisation does not have'; column_name := 'group_ids';
  elsif jsonb_typeof(coalesce(p_row -> 'addresses', '[]')) not in ('array', 'null')
    or jsonb_array_length(
      case when jsonb_typeof(p_row -> 'addresses') = 'array' then p_row -> 'addresses' else '[]' end
    ) > 20
    or exists (
      select
      from jsonb_array_elements(
        case when jsonb_typeof(p_row -> 'addresses') = 'array' then p_row -> 'addresses' else '[]' end
      ) as e
      where not coalesce(private.is_address(e ->> 'kind', e ->> 'value', e ->> 'position'), false)
    ) then
    reason := 'must be at most 20 of {kind: phone | email | endpoint, value, position}, normalised';
    column_name := 'addresses';
  end if;
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.import_contacts(p_organisation_id uuid, p_contacts jsonb)
returns jsonb language sql security invoker set search_path = '' set statement_timeout = '60s'
begin atomic
  select private.import_contacts(p_organisation_id, p_contacts);
end;

-- Access -------------------------------------------------------------------------------------------------------------

select private.open_to('authenticated', 'import_contacts');
