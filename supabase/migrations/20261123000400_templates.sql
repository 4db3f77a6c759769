-- Templates: what an alert says, per channel and language; versions never change; rendering and SMS segments.

-- Types --------------------------------------------------------------------------------------------------------------

-- a parsed text: literal, variable, literal, variable, ..., literal; a null fallback means that the variable is needed
create type private.pieces as (literals text[], variables text[], fallbacks text[]);

-- Tables -------------------------------------------------------------------------------------------------------------

create table public.templates (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  id uuid not null default private.new_id(),
  name text not null check (char_length(name) between 1 and 200 and private.is_clean(name)),
  version integer not null default 1 check (version >= 1),
  created_at timestamptz not null default now(),
  primary key (organisation_id, id)
);

create table public.template_contents (
  organisation_id uuid not null,
  template_id uuid not null,
  version integer not null,
  channel public.channel not null,
  language text not null check (language ~ '^[a-z]{2}(-[A-Z]{2})?$'),
  subject text check (char_length(subject) <= 200 and private.is_clean(subject)),
  body text not null check (char_length(body) >= 1),
  html text check (char_length(html) <= 200000),
  primary key (organisation_id, template_id, version, channel, language),
  foreign key (organisation_id, template_id) references public.templates (organisation_id, id) on delete cascade,
  constraint body_fits_channel check (
    char_length(body) <= case channel when 'sms' then 1600 when 'voice' then 2500 else 100000 end
  ),
  constraint email_has_subject check (channel <> 'email' or subject is not null),
  constraint only_email_has_html check (channel = 'email' or html is null)
);

-- Text ---------------------------------------------------------------------------------------------------------------

-- {{ name }} or {{ name | fallback }}; refuses nested, unclosed and misspelt places, and says where
create function private.parse_text(p_text text)
returns private.pieces
language plpgsql
immutable
set search_path = ''
as $$
declare
  c_place constant text := '\{\{\s*[a-z][a-z0-9_]{0,62}\s*(?:\|[^{}]*)?\}\}';
  v_pieces private.pieces;
  v_stray text;
begin
  if p_text is null then
    return null;
  end if;
  v_pieces.literals := regexp_split_to_array(p_text, c_place);
  select array_agg(m[1]), array_agg(m[2])
  into v_pieces.variables, v_pieces.fallbacks
  from (
    select regexp_matches(
      p_text, '\{\{\s*([a-z][a-z0-9_]{0,62})\s*(?:\|\s*([^{}]*?)\s*)?\}\}', 'g'
    ) as m
  ) as place;
  v_pieces.variables := coalesce(v_pieces.variables, '{}');
  v_pieces.fallbacks := coalesce(v_pieces.fallbacks, '{}');
  select literal into v_stray
  from unnest(v_pieces.literals) as literal
  where literal like '%{{%' or literal like '%}}%'
  limit 1;
  if v_stray is not null then
    perform private.refuse(
      422, 'template_malformed',
      'Write variables as {{name}} or {{name | fallback}}: small letters, digits and _, not nested, and closed.',
      jsonb_build_object('near_position', strpos(p_text, v_stray) + greatest(strpos(v_stray, '{{'), strpos(v_stray, '}}')) - 1)
    );
  end if;
  return v_pieces;
end
$$;

-- one pass, left to right: a value is never read again as a template. A value that is absent or empty takes the fallback.
-- p_escape: HTML, for what people typed in names and attributes
create function private.render(
  p_pieces private.pieces, p_name text, p_external_id text, p_attributes jsonb, p_escape boolean default false
)
returns text
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_text text := p_pieces.literals[1];
  v_value text;
begin
  if v_text is null then
    return null; -- a content without subject or HTML
  end if;
  for i in 1 .. cardinality(p_pieces.variables)
  loop
    v_value := case p_pieces.variables[i]
      when 'name' then p_name
      when 'external_id' then p_external_id
      else p_attributes ->> p_pieces.variables[i]
    end;
    if v_value is null or v_value = '' then
      v_value := coalesce(p_pieces.fallbacks[i], '');
    end if;
    if p_escape then
      v_value := replace(replace(replace(replace(replace(
        v_value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');
    end if;
    v_text := v_text || v_value || p_pieces.literals[i + 1];
  end loop;
  return v_text;
end
$$;

-- a value may hold line breaks; a subject may not (e-mail header injection)
create function private.one_line(p_text text)
returns text
language sql
immutable
set search_path = ''
as $$
  select case when private.is_clean(p_text) then p_text else regexp_replace(p_text, '[\x01-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+', ' ', 'g') end
$$;

-- the values that are the same for everyone are filled in once, when the alert is made
create function private.fill(p_pieces private.pieces, p_values jsonb, p_escape boolean default false)
returns private.pieces
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_filled private.pieces;
  v_literal text := p_pieces.literals[1];
  v_value text;
begin
  if p_pieces is null then
    return null;
  end if;
  v_filled.literals := '{}';
  v_filled.variables := '{}';
  v_filled.fallbacks := '{}';
  for i in 1 .. cardinality(p_pieces.variables)
  loop
    v_value := p_values ->> p_pieces.variables[i];
    if v_value is null then
      v_filled.literals := v_filled.literals || v_literal;
      v_filled.variables := v_filled.variables || p_pieces.variables[i];
      v_filled.fallbacks := array_append(v_filled.fallbacks, p_pieces.fallbacks[i]);
      v_literal := p_pieces.literals[i + 1];
    else
      if p_escape then
        v_value := private.render(row(array['', ''], array['name'], array[null])::private.pieces, v_value, null, '{}', true);
      end if;
      v_literal := v_literal || v_value || p_pieces.literals[i + 1];
    end if;
  end loop;
  v_filled.literals := v_filled.literals || v_literal;
  return v_filled;
end
$$;

-- the variables that every recipient must have, since the text gives no fallback
create function private.needed_variables(p_pieces private.pieces)
returns setof text
language sql
immutable
set search_path = ''
as $$
  select distinct v.variable
  from unnest((p_pieces).variables, (p_pieces).fallbacks) as v (variable, fallback)
  where v.fallback is null
$$;

-- Segments -----------------------------------------------------------------------------------------------------------

-- the GSM 03.38 alphabet with its extension table
create function private.gsm_pattern()
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select '^[\n\f\r !"#$%&''()*+,\-./0-9:;<=>?@A-Z\[\\\]^_a-z{|}~ÄÅÆÇÉÑÖØÜßàäåæèéìñòöøùü¡£¤¥§¿ΓΔΘΛΞΠΣΦΨΩ€]*$'
$$;

create function private.sms_segments_exact(p_text text)
returns integer
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  c_gsm constant text := private.gsm_pattern();
  c_extension constant text := '^{}\[~]|€' || chr(12);
  v_wide boolean;
  v_units integer;
  v_room integer;
  v_used integer := 0;
  v_size integer;
  v_segments integer := 1;
  v_character text;
begin
  if p_text ~ c_gsm then
    v_units := 2 * length(p_text) - length(translate(p_text, c_extension, ''));
    v_wide := v_units <> length(p_text);
    if v_units <= 160 then
      return 1;
    end if;
    v_room := 153;
  else
    v_wide := p_text ~ U&'[\+010000-\+10FFFF]';
    v_units := length(p_text);
    if v_wide then
      v_units := v_units + length(regexp_replace(p_text, U&'[^\+010000-\+10FFFF]', '', 'g'));
    end if;
    if v_units <= 70 then
      return 1;
    end if;
    v_room := 67;
  end if;
  if not v_wide then
    return (v_units + v_room - 1) / v_room;
  end if;

  -- only long texts with characters of two units come here: walk, since a pair moves to the next segment whole
  foreach v_character in array string_to_array(p_text, null)
  loop
    v_size := case
      when v_room = 153 then case when strpos(c_extension, v_character) > 0 then 2 else 1 end
      when ascii(v_character) > 65535 then 2
      else 1
    end;
    if v_used + v_size > v_room then
      v_segments := v_segments + 1;
      v_used := 0;
    end if;
    v_used := v_used + v_size;
  end loop;
  return v_segments;
end
$$;

-- how many SMS segments a text takes: GSM 03.38 (160, or 153 each) or UCS-2 (70, or 67 each), where neither an escape
-- sequence nor a surrogate pair is split over two segments. Same rule as values.segments; a test compares both.
-- ASCII without the backtick, the extension and the control characters is the common case and stays free of regular
-- expressions
create function private.sms_segments(p_text text)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when octet_length(p_text) = length(p_text) and translate(
      p_text,
      E'`^{}[]~\\|\x01\x02\x03\x04\x05\x06\x07\x08\t\x0b\f\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f',
      ''
    ) = p_text then
      case when length(p_text) <= 160 then 1 else (length(p_text) + 152) / 153 end
    else private.sms_segments_exact(p_text)
  end
$$;

-- what the fixed part of a text takes: GSM septets, or minus its UTF-16 units when it needs UCS-2; null when it holds
-- characters of two units, since then a segment's end matters and the whole text must be measured
create function private.sms_fixed_size(p_text text)
returns integer
language sql
immutable
set search_path = ''
as $$
  select case
    when p_text ~ U&'[\+010000-\+10FFFF]' or p_text ~ '[\^{}\[\]~|\\€\x0c]' then null
    when p_text ~ private.gsm_pattern() then length(p_text)
    else -length(p_text)
  end
$$;

-- Operations ---------------------------------------------------------------------------------------------------------

-- every save is a new version; alerts keep the version that they were made with
create function private.save_template(p_organisation_id uuid, p_template jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_template_id uuid := coalesce((p_template ->> 'template_id')::uuid, private.new_id());
  v_version integer;
  v_content record;
begin
  perform private.authorise(p_organisation_id, 'alerts.send');
  if char_length(coalesce(p_template ->> 'name', '')) not between 1 and 200 or not private.is_clean(p_template ->> 'name') then
    perform private.refuse(422, 'name_invalid', 'A template''s name has 1 to 200 characters and no control characters.');
  end if;
  if jsonb_typeof(p_template -> 'contents') is distinct from 'array'
    or jsonb_array_length(p_template -> 'contents') not between 1 and 100 then
    perform private.refuse(422, 'contents_missing', 'Give the template a content for at least one channel and language.');
  end if;

  insert into public.templates (organisation_id, id, name)
  values (p_organisation_id, v_template_id, p_template ->> 'name')
  on conflict (organisation_id, id) do update
  set version = templates.version + 1, name = excluded.name
  returning version into v_version;

  for v_content in
    select *
    from jsonb_to_recordset(p_template -> 'contents') as c (
      channel text, language text, subject text, body text, html text
    )
  loop
    perform private.check_content(v_content.channel, v_content.language, v_content.subject, v_content.body, v_content.html);
    begin
      insert into public.template_contents (
        organisation_id, template_id, version, channel, language, subject, body, html
      )
      values (
        p_organisation_id, v_template_id, v_version, v_content.channel::public.channel, v_content.language,
        v_content.subject, v_content.body, v_content.html
      );
    exception when unique_violation then
      perform private.refuse(
        422, 'content_repeated', 'Give one content for each channel and language.',
        jsonb_build_object('channel', v_content.channel, 'language', v_content.language)
      );
    end;
  end loop;
  return jsonb_build_object('template_id', v_template_id, 'version', v_version);
end
$$;

create function private.check_content(p_channel text, p_language text, p_subject text, p_body text, p_html text)
returns void
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_longest integer := case p_channel when 'sms' then 1600 when 'voice' then 2500 else 100000 end;
  v_where jsonb := jsonb_build_object('channel', left(p_channel, 20), 'language', left(p_language, 20));
begin
  if coalesce(p_channel, '') not in ('sms', 'voice', 'email', 'webhook') then
    perform private.refuse(422, 'channel_unknown', 'A channel is sms, voice, email or webhook.', v_where);
  end if;
  if coalesce(p_language, '') !~ '^[a-z]{2}(-[A-Z]{2})?$' then
    perform private.refuse(422, 'language_invalid', 'Give a language such as fr or en-GB.', v_where);
  end if;
  if coalesce(p_body, '') = '' or char_length(p_body) > v_longest then
    perform private.refuse(422, 'body_invalid', 'A body has 1 to 1,600 (sms), 2,500 (voice) or 100,000 characters.', v_where);
  end if;
  if p_body ~ '[\x01-\x08\x0b\x0e-\x1f\x7f]' then
    perform private.refuse(422, 'control_characters', 'Remove the control characters from the body.', v_where);
  end if;
  if p_channel = 'email' and coalesce(p_subject, '') = '' then
    perform private.refuse(422, 'subject_missing', 'An e-mail needs a subject.', v_where);
  end if;
  if char_length(p_subject) > 200 or not private.is_clean(p_subject) then
    perform private.refuse(422, 'subject_invalid', 'A subject has at most 200 characters and no control characters.', v_where);
  end if;
  if p_html is not null and (p_channel <> 'email' or char_length(p_html) > 200000) then
    perform private.refuse(422, 'html_invalid', 'Only an e-mail has HTML, of at most 200,000 characters.', v_where);
  end if;
  perform private.parse_text(p_subject), private.parse_text(p_body), private.parse_text(p_html);
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.save_template(p_organisation_id uuid, p_template jsonb)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.save_template(p_organisation_id, p_template);
end;

-- Access -------------------------------------------------------------------------------------------------------------

alter table public.templates enable row level security;
alter table public.template_contents enable row level security;

revoke all on public.templates, public.template_contents from public, anon, authenticated, service_role;
grant select on public.templates, public.template_contents to authenticated;

create policy "Templates can be read by members who may read alerts" on public.templates
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('alerts.read'))));

create policy "Template contents can be read by members who may read alerts" on public.template_contents
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('alerts.read'))));

select private.open_to('authenticated', 'save_template');
