-- Contacts: people, their ordered addresses, groups, and the destinations that must not be reached.

-- Types --------------------------------------------------------------------------------------------------------------

create type public.channel as enum ('sms', 'voice', 'email', 'webhook');
create type public.address_kind as enum ('phone', 'email', 'endpoint');
create type public.suppression_reason as enum ('opt_out', 'bounce', 'complaint', 'invalid', 'manual');

-- What an address is -------------------------------------------------------------------------------------------------

-- begin atomic: a check runs as the member who writes, and a body that is text would need usage of schema private
create function private.is_address(p_kind text, p_value text, p_position text)
returns boolean
language sql
immutable
set search_path = ''
begin atomic
  select char_length(p_value) <= 2000 and private.is_clean(p_value)
    and (p_position is null or p_position ~ '^([1-9][0-9]?|100)$')
    and case p_kind
      when 'phone' then p_value ~ '^\+[1-9][0-9]{6,14}$'
      when 'email' then p_value ~ '^[^@\s]{1,64}@[^@\s]{3,255}$' and p_value = lower(p_value)
      when 'endpoint' then p_value ~ '^https?://[^\s]+$'
      else false
    end;
end;

-- Tables -------------------------------------------------------------------------------------------------------------

create table public.contacts (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  id uuid not null default private.new_id(),
  external_id text check (char_length(external_id) between 1 and 200 and private.is_clean(external_id)),
  name text not null check (char_length(name) between 1 and 200 and private.is_clean(name)),
  language text check (language ~ '^[a-z]{2}(-[A-Z]{2})?$'),
  time_zone text check (char_length(time_zone) between 1 and 64),
  tags text[] not null default '{}' check (cardinality(tags) <= 50),
  attributes jsonb not null default '{}'
    check (jsonb_typeof(attributes) = 'object' and pg_column_size(attributes) <= 16384),
  restricted_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (organisation_id, id),
  unique (organisation_id, external_id)
);

create table public.addresses (
  organisation_id uuid not null,
  id uuid not null default private.new_id(),
  contact_id uuid not null,
  kind public.address_kind not null,
  value text not null,
  position smallint not null default 1 check (position between 1 and 100),
  country text not null,
  destination_hash bytea not null,
  created_at timestamptz not null default now(),
  primary key (organisation_id, id),
  foreign key (organisation_id, contact_id) references public.contacts (organisation_id, id) on delete cascade,
  unique (organisation_id, contact_id, kind, value),
  constraint value_fits_kind check (private.is_address(kind::text, value, position::text))
);
create index addresses_of_contact on public.addresses (organisation_id, contact_id, kind, position);
create index addresses_destination on public.addresses (organisation_id, destination_hash);

create table public.groups (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  id uuid not null default private.new_id(),
  name text not null check (char_length(name) between 1 and 200 and private.is_clean(name)),
  created_at timestamptz not null default now(),
  primary key (organisation_id, id),
  unique (organisation_id, name)
);

create table public.group_members (
  organisation_id uuid not null,
  group_id uuid not null,
  contact_id uuid not null,
  primary key (organisation_id, group_id, contact_id),
  foreign key (organisation_id, group_id) references public.groups (organisation_id, id) on delete cascade,
  foreign key (organisation_id, contact_id) references public.contacts (organisation_id, id) on delete cascade
);
create index group_members_contact on public.group_members (organisation_id, contact_id);

-- a keyed hash, so that the entry outlives the address that it protects; channel null means every channel
create table public.suppressions (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  destination_hash bytea not null,
  channel public.channel,
  reason public.suppression_reason not null,
  source text not null check (char_length(source) between 1 and 100),
  created_at timestamptz not null default now(),
  -- a primary key can't hold the null of "every channel"
  unique nulls not distinct (organisation_id, destination_hash, channel)
);

-- ITU-T E.164 country codes; NANP and shared codes by area, so that the longest prefix decides
create table private.calling_prefixes (
  prefix text primary key check (prefix ~ '^[1-9][0-9]{0,6}$'),
  country text not null check (country ~ '^[A-Z]{2}$')
);

-- Data ---------------------------------------------------------------------------------------------------------------

insert into private.calling_prefixes (prefix, country)
select unnest(string_to_array(prefixes, ',')), country
from (values
  ('AC', '247'), ('AD', '376'), ('AE', '971'), ('AF', '93'), ('AG', '1268'), ('AI', '1264'), ('AL', '355'),
  ('AM', '374'), ('AO', '244'), ('AR', '54'), ('AS', '1684'), ('AT', '43'), ('AU', '61'), ('AW', '297'),
  ('AX', '35818'), ('AZ', '994'), ('BA', '387'), ('BB', '1246'), ('BD', '880'), ('BE', '32'), ('BF', '226'),
  ('BG', '359'), ('BH', '973'), ('BI', '257'), ('BJ', '229'), ('BM', '1441'), ('BN', '673'), ('BO', '591'),
  ('BQ', '5993,5994,5997'), ('BR', '55'), ('BS', '1242'), ('BT', '975'), ('BW', '267'), ('BY', '375'),
  ('BZ', '501'),
  ('CA', '1204,1226,1236,1249,1250,1257,1263,1289,1306,1343,1354,1365,1367,1368,1382,1387,1403,1416,1418,1428,1431,1437,1438,1450,1460,1468,1474,1506,1514,1519,1537,1548,1579,1581,1584,1587,1604,1613,1639,1647,1672,1683,1705,1709,1742,1753,1778,1780,1782,1807,1819,1825,1867,1873,1879,1902,1905,1942'),
  ('CD', '243'), ('CF', '236'), ('CG', '242'), ('CH', '41'), ('CI', '225'), ('CK', '682'), ('CL', '56'),
  ('CM', '237'), ('CN', '86'), ('CO', '57'), ('CR', '506'), ('CU', '53'), ('CV', '238'), ('CW', '599'),
  ('CY', '357'), ('CZ', '420'), ('DE', '49'), ('DJ', '253'), ('DK', '45'), ('DM', '1767'),
  ('DO', '1809,1829,1849'), ('DZ', '213'), ('EC', '593'), ('EE', '372'), ('EG', '20'), ('EH', '212528'),
  ('ER', '291'), ('ES', '34'), ('ET', '251'), ('FI', '358'), ('FJ', '679'), ('FK', '500'), ('FM', '691'),
  ('FO', '298'), ('FR', '33'), ('GA', '241'), ('GB', '44'), ('GD', '1473'), ('GE', '995'), ('GF', '594'),
  ('GG', '441481,447781,447839,447911'), ('GH', '233'), ('GI', '350'), ('GL', '299'), ('GM', '220'),
  ('GN', '224'), ('GP', '590'), ('GQ', '240'), ('GR', '30'), ('GT', '502'), ('GU', '1671'), ('GW', '245'),
  ('GY', '592'), ('HK', '852'), ('HN', '504'), ('HR', '385'), ('HT', '509'), ('HU', '36'), ('ID', '62'),
  ('IE', '353'), ('IL', '972'), ('IM', '441624,447524,447624,447924'), ('IN', '91'), ('IO', '246'),
  ('IQ', '964'), ('IR', '98'), ('IS', '354'), ('IT', '39'), ('JE', '441534,447509,447797,447829,447937'),
  ('JM', '1658,1876'), ('JO', '962'), ('JP', '81'), ('KE', '254'), ('KG', '996'), ('KH', '855'), ('KI', '686'),
  ('KM', '269'), ('KN', '1869'), ('KP', '850'), ('KR', '82'), ('KW', '965'), ('KY', '1345'), ('KZ', '76,77'),
  ('LA', '856'), ('LB', '961'), ('LC', '1758'), ('LI', '423'), ('LK', '94'), ('LR', '231'), ('LS', '266'),
  ('LT', '370'), ('LU', '352'), ('LV', '371'), ('LY', '218'), ('MA', '212'), ('MC', '377'), ('MD', '373'),
  ('ME', '382'), ('MG', '261'), ('MH', '692'), ('MK', '389'), ('ML', '223'), ('MM', '95'), ('MN', '976'),
  ('MO', '853'), ('MP', '1670'), ('MQ', '596'), ('MR', '222'), ('MS', '1664'), ('MT', '356'), ('MU', '230'),
  ('MV', '960'), ('MW', '265'), ('MX', '52'), ('MY', '60'), ('MZ', '258'), ('NA', '264'), ('NC', '687'),
  ('NE', '227'), ('NF', '672'), ('NG', '234'), ('NI', '505'), ('NL', '31'), ('NO', '47'), ('NP', '977'),
  ('NR', '674'), ('NU', '683'), ('NZ', '64'), ('OM', '968'), ('PA', '507'), ('PE', '51'), ('PF', '689'),
  ('PG', '675'), ('PH', '63'), ('PK', '92'), ('PL', '48'), ('PM', '508'), ('PR', '1787,1939'), ('PS', '970'),
  ('PT', '351'), ('PW', '680'), ('PY', '595'), ('QA', '974'), ('RE', '262'), ('RO', '40'), ('RS', '381'),
  ('RU', '7'), ('RW', '250'), ('SA', '966'), ('SB', '677'), ('SC', '248'), ('SD', '249'), ('SE', '46'),
  ('SG', '65'), ('SH', '290'), ('SI', '386'), ('SJ', '4779'), ('SK', '421'), ('SL', '232'), ('SM', '378'),
  ('SN', '221'), ('SO', '252'), ('SR', '597'), ('SS', '211'), ('ST', '239'), ('SV', '503'), ('SX', '1721'),
  ('SY', '963'), ('SZ', '268'), ('TA', '2908'), ('TC', '1649'), ('TD', '235'), ('TG', '228'), ('TH', '66'),
  ('TJ', '992'), ('TK', '690'), ('TL', '670'), ('TM', '993'), ('TN', '216'), ('TO', '676'), ('TR', '90'),
  ('TT', '1868'), ('TV', '688'), ('TW', '886'), ('TZ', '255'), ('UA', '380'), ('UG', '256'), ('US', '1'),
  ('UY', '598'), ('UZ', '998'), ('VA', '3906698'), ('VC', '1784'), ('VE', '58'), ('VG', '1284'),
  ('VI', '1340'), ('VN', '84'), ('VU', '678'), ('WF', '681'), ('WS', '685'), ('XK', '383'), ('YE', '967'),
  ('YT', '262269,262639'), ('ZA', '27'), ('ZM', '260'), ('ZW', '263')
) as plan (country, prefixes);

-- Destinations -------------------------------------------------------------------------------------------------------

-- sixteen bytes of HMAC-SHA256 under the organisation's own key: equal within it, meaningless elsewhere
create function private.destination_hash(p_organisation_id uuid, p_value text)
returns bytea
language sql
stable
set search_path = ''
as $$
  select substr(extensions.hmac(convert_to(p_value, 'UTF8'), k.destination_key, 'sha256'), 1, 16)
  from private.organisation_keys k
  where k.organisation_id = p_organisation_id
$$;

-- the country of an E.164 number by its longest known prefix; ZZ (ISO 3166 user-assigned) where none is known
create function private.country_of(p_phone text)
returns text
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select p.country
    from private.calling_prefixes p
    where p.prefix = any (array[
      substr(p_phone, 2, 1), substr(p_phone, 2, 2), substr(p_phone, 2, 3), substr(p_phone, 2, 4),
      substr(p_phone, 2, 5), substr(p_phone, 2, 6), substr(p_phone, 2, 7)
    ])
    order by length(p.prefix) desc
    limit 1
  ), 'ZZ')
$$;

-- what is derived from an address is never written by anybody else
create function private.derive_address()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if new.kind = 'email' then
    new.value := lower(new.value);
  end if;
  new.country := case when new.kind = 'phone' then private.country_of(new.value) else 'ZZ' end;
  new.destination_hash := private.destination_hash(new.organisation_id, new.value);
  return new;
end
$$;

create trigger derive_address
before insert or update of value, kind, country, destination_hash on public.addresses
for each row execute function private.derive_address();

create function private.touch()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.updated_at := now();
  return new;
end
$$;

create trigger touch
before update on public.contacts
for each row execute function private.touch();

-- the kind of address that a channel travels to
create function private.kind_for(p_channel public.channel)
returns public.address_kind
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case p_channel
    when 'sms' then 'phone'
    when 'voice' then 'phone'
    when 'email' then 'email'
    when 'webhook' then 'endpoint'
  end::public.address_kind
$$;

-- Operations ---------------------------------------------------------------------------------------------------------

-- a destination of this organisation is reached no more; a repeat keeps the first reason
create function private.suppress(
  p_organisation_id uuid, p_destination_hash bytea, p_channel public.channel,
  p_reason public.suppression_reason, p_source text
)
returns void
language sql
set search_path = ''
as $$
  insert into public.suppressions (organisation_id, destination_hash, channel, reason, source)
  values (p_organisation_id, p_destination_hash, p_channel, p_reason, p_source)
  on conflict (organisation_id, destination_hash, channel) do nothing
$$;

create function private.suppress_address(
  p_organisation_id uuid, p_value text, p_channel public.channel, p_reason public.suppression_reason
)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- an endpoint's letters matter, an e-mail's do not
  v_value text := case when p_value ~ '^https?://' then p_value else lower(p_value) end;
begin
  perform private.authorise(p_organisation_id, 'contacts.write');
  if p_channel is null and not exists (
    select from unnest(array['phone', 'email', 'endpoint']) as kind where private.is_address(kind, v_value, null)
  ) or p_channel is not null and not coalesce(private.is_address(private.kind_for(p_channel)::text, v_value, null), false) then
    -- as typed, "06 12 34 56 78" would be hashed as it stands and protect nobody
    perform private.refuse(422, 'address_invalid', 'Give an E.164 number such as +33612345678, an e-mail address or a URL.');
  end if;
  perform private.suppress(
    p_organisation_id, private.destination_hash(p_organisation_id, v_value), p_channel, p_reason, 'member'
  );
  return jsonb_build_object('suppressed', true);
end
$$;

-- where an endpoint address points, for whoever may show its owner the signing secret
create function private.read_endpoint(p_organisation_id uuid, p_address_id uuid)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_value text;
begin
  perform private.authorise(p_organisation_id, 'contacts.write');
  select a.value into v_value
  from public.addresses a
  where a.organisation_id = p_organisation_id and a.id = p_address_id and a.kind = 'endpoint';
  if v_value is null then
    perform private.refuse(404, 'endpoint_not_found', 'This organisation has no endpoint with this id.');
  end if;
  return jsonb_build_object('url', v_value);
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.read_endpoint(p_organisation_id uuid, p_address_id uuid)
returns jsonb language sql stable security invoker set search_path = ''
begin atomic
  select private.read_endpoint(p_organisation_id, p_address_id);
end;

create function public.suppress_address(
  p_organisation_id uuid, p_value text, p_channel public.channel, p_reason public.suppression_reason
)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.suppress_address(p_organisation_id, p_value, p_channel, p_reason);
end;

-- Access -------------------------------------------------------------------------------------------------------------

alter table public.contacts enable row level security;
alter table public.addresses enable row level security;
alter table public.groups enable row level security;
alter table public.group_members enable row level security;
alter table public.suppressions enable row level security;
alter table private.calling_prefixes enable row level security;

revoke all on public.contacts, public.addresses, public.groups, public.group_members, public.suppressions
  from public, anon, authenticated, service_role;
grant select, delete on public.contacts, public.addresses, public.groups, public.group_members to authenticated;
grant insert (organisation_id, external_id, name, language, time_zone, tags, attributes) on public.contacts to authenticated;
grant update (external_id, name, language, time_zone, tags, attributes) on public.contacts to authenticated;
grant insert (organisation_id, contact_id, kind, value, position) on public.addresses to authenticated;
grant update (value, position) on public.addresses to authenticated;
grant insert (organisation_id, name) on public.groups to authenticated;
grant update (name) on public.groups to authenticated;
grant insert (organisation_id, group_id, contact_id) on public.group_members to authenticated;
grant select on public.suppressions to authenticated;

do $$
declare
  v_table text;
  v_noun text;
begin
  foreach v_table in array array['contacts', 'addresses', 'groups', 'group_members']
  loop
    v_noun := initcap(replace(v_table, '_', ' '));
    execute format(
      'create policy %I on public.%I for select to authenticated
       using (organisation_id = any (array(select private.organisations_with(''contacts.read''))))',
      v_noun || ' can be read by members who may read contacts', v_table
    );
    execute format(
      'create policy %I on public.%I for insert to authenticated
       with check (organisation_id = any (array(select private.organisations_with(''contacts.write''))))',
      v_noun || ' can be added by members who may write contacts', v_table
    );
    if v_table <> 'group_members' then
      execute format(
        'create policy %I on public.%I for update to authenticated
         using (organisation_id = any (array(select private.organisations_with(''contacts.write''))))
         with check (organisation_id = any (array(select private.organisations_with(''contacts.write''))))',
        v_noun || ' can be changed by members who may write contacts', v_table
      );
    end if;
    execute format(
      'create policy %I on public.%I for delete to authenticated
       using (organisation_id = any (array(select private.organisations_with(''contacts.write''))))',
      v_noun || ' can be removed by members who may write contacts', v_table
    );
  end loop;
end
$$;

create policy "Suppressions can be read by members who may read contacts" on public.suppressions
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('contacts.read'))));

-- a check or a default runs as the member who writes
grant execute on function private.is_address(text, text, text) to authenticated;
select private.open_to('authenticated', 'suppress_address');
select private.open_to('authenticated', 'read_endpoint');
