-- Organisations: tenants, their members, and what a role may do.

-- Types --------------------------------------------------------------------------------------------------------------

create type public.member_role as enum ('owner', 'admin', 'sender', 'viewer', 'billing', 'privacy');

-- Tables -------------------------------------------------------------------------------------------------------------

create table public.organisations (
  id uuid primary key default private.new_id(),
  name text not null check (char_length(name) between 1 and 200 and private.is_clean(name)),
  country text not null check (country ~ '^[A-Z]{2}$'),
  language text not null default 'fr' check (language ~ '^[a-z]{2}(-[A-Z]{2})?$'),
  time_zone text not null default 'Europe/Paris' check (char_length(time_zone) between 1 and 64),
  max_recipients integer not null default 100000 check (max_recipients between 1 and 1000000),
  created_at timestamptz not null default now()
);

create table public.memberships (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  user_id uuid not null references auth.users (id) on delete cascade,
  role public.member_role not null,
  created_at timestamptz not null default now(),
  primary key (organisation_id, user_id)
);
create index memberships_user on public.memberships (user_id);

create table public.invitations (
  organisation_id uuid not null references public.organisations (id) on delete cascade,
  id uuid not null default private.new_id(),
  email text not null check (email = lower(email) and char_length(email) <= 254 and email ~ '^[^@\s]+@[^@\s]+$'),
  role public.member_role not null check (role <> 'owner'),
  token_hash bytea not null,
  invited_by uuid references auth.users (id) on delete set null,
  expires_at timestamptz not null,
  accepted_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (organisation_id, id)
);
create index invitations_inviter on public.invitations (invited_by);
-- single use, hashed; looked up by its token alone
create index invitations_token on public.invitations (token_hash);

-- the only place where a role means anything
create table private.role_permissions (
  role public.member_role not null,
  permission text not null,
  primary key (role, permission)
);

create table private.role_ranks (
  role public.member_role primary key,
  rank smallint not null
);

-- keys that make destination hashes useless outside their organisation; destroyed with it
create table private.organisation_keys (
  organisation_id uuid primary key references public.organisations (id) on delete cascade,
  destination_key bytea not null default extensions.gen_random_bytes(32)
);

-- Data ---------------------------------------------------------------------------------------------------------------

insert into private.role_ranks (role, rank)
values ('owner', 100), ('admin', 80), ('sender', 40), ('billing', 40), ('privacy', 40), ('viewer', 20);

insert into private.role_permissions (role, permission)
select 'owner'::public.member_role, permission
from unnest(array[
  'organisation.read', 'organisation.manage', 'members.read', 'members.manage', 'contacts.read', 'contacts.write',
  'alerts.read', 'alerts.send', 'deliveries.read', 'billing.read', 'billing.manage', 'audit.read', 'privacy.manage'
]) as permission
union all
select 'admin', permission
from unnest(array[
  'organisation.read', 'organisation.manage', 'members.read', 'members.manage', 'contacts.read', 'contacts.write',
  'alerts.read', 'alerts.send', 'deliveries.read', 'billing.read', 'audit.read', 'privacy.manage'
]) as permission
union all
select 'sender', permission
from unnest(array[
  'organisation.read', 'members.read', 'contacts.read', 'contacts.write', 'alerts.read', 'alerts.send', 'deliveries.read'
]) as permission
union all
select 'viewer', permission
from unnest(array['organisation.read', 'members.read', 'contacts.read', 'alerts.read', 'deliveries.read']) as permission
union all
select 'billing', permission
from unnest(array['organisation.read', 'billing.read', 'billing.manage']) as permission
union all
select 'privacy', permission
from unnest(array['organisation.read', 'contacts.read', 'audit.read', 'privacy.manage']) as permission;

-- Who may ------------------------------------------------------------------------------------------------------------

-- the caller's organisations in which a permission holds: live from memberships, never from the token
create function private.organisations_with(p_permission text)
returns setof uuid
language sql
stable
security definer
set search_path = ''
as $$
  select m.organisation_id
  from public.memberships m
  join private.role_permissions r on r.role = m.role
  where m.user_id = (select auth.uid())
    and r.permission = p_permission
$$;

-- first statement of every member operation: 401 without an identity, 404 outside the organisation, 403 without the right
create function private.authorise(p_organisation_id uuid, p_permission text)
returns void
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_role public.member_role;
begin
  if auth.uid() is null then
    perform private.refuse(401, 'sign_in_needed', 'Sign in first: this needs a member''s access token.');
  end if;

  select m.role into v_role
  from public.memberships m
  where m.organisation_id = p_organisation_id
    and m.user_id = auth.uid();

  if v_role is null then
    perform private.refuse(404, 'organisation_not_found', 'No organisation of yours has this id.');
  end if;

  if not exists (
    select from private.role_permissions r where r.role = v_role and r.permission = p_permission
  ) then
    perform private.refuse(
      403, 'permission_missing',
      format('Your role %s lacks %s. Ask an owner or admin of the organisation.', v_role, p_permission),
      jsonb_build_object('role', v_role, 'permission', p_permission)
    );
  end if;
end
$$;

create function private.rank_of(p_role public.member_role)
returns smallint
language sql
stable
set search_path = ''
as $$
  select rank from private.role_ranks where role = p_role
$$;

-- nobody grants more than they have
create function private.authorise_role(p_organisation_id uuid, p_role public.member_role)
returns void
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  if p_role is null then
    perform private.refuse(422, 'role_missing', 'Give a role: admin, sender, viewer, billing or privacy.');
  end if;
  if p_role = 'owner' then
    perform private.refuse(403, 'owner_only_by_transfer', 'An owner is made by transferring the organisation only.');
  end if;
  if private.rank_of(p_role) > coalesce((
    select private.rank_of(m.role)
    from public.memberships m
    where m.organisation_id = p_organisation_id and m.user_id = auth.uid()
  ), 0) then
    perform private.refuse(403, 'rank_too_low', 'You can''t grant or change a role that ranks above your own.');
  end if;
end
$$;

-- Operations ---------------------------------------------------------------------------------------------------------

create function private.create_organisation(
  p_organisation_id uuid, p_name text, p_country text, p_language text, p_time_zone text
)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  if auth.uid() is null then
    perform private.refuse(401, 'sign_in_needed', 'Sign in first: this needs a member''s access token.');
  end if;
  if char_length(coalesce(p_name, '')) not between 1 and 200 or not private.is_clean(p_name) then
    perform private.refuse(422, 'name_invalid', 'A name has 1 to 200 characters and no control characters.');
  end if;
  if not exists (select from pg_catalog.pg_timezone_names z where z.name = p_time_zone) then
    perform private.refuse(422, 'time_zone_unknown', 'Give a time zone of the IANA list, such as Europe/Paris.');
  end if;
  if coalesce(p_country, '') !~ '^[A-Z]{2}$' or coalesce(p_language, '') !~ '^[a-z]{2}(-[A-Z]{2})?$' then
    perform private.refuse(422, 'locale_invalid', 'Give a country such as FR and a language such as fr.');
  end if;

  -- the caller chose the id: a repeat by an owner returns the first answer
  if exists (
    select from public.memberships m
    where m.organisation_id = p_organisation_id and m.user_id = auth.uid() and m.role = 'owner'
  ) then
    return jsonb_build_object('organisation_id', p_organisation_id);
  end if;
  if p_organisation_id is null or exists (select from public.organisations o where o.id = p_organisation_id) then
    perform private.refuse(409, 'organisation_id_unusable', 'Choose a new random id for the organisation.');
  end if;

  insert into public.organisations (id, name, country, language, time_zone)
  values (p_organisation_id, p_name, p_country, p_language, p_time_zone);
  insert into private.organisation_keys (organisation_id)
  values (p_organisation_id);
  insert into public.memberships (organisation_id, user_id, role)
  values (p_organisation_id, auth.uid(), 'owner');
  return jsonb_build_object('organisation_id', p_organisation_id);
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.create_organisation(
  p_organisation_id uuid, p_name text, p_country text, p_language text, p_time_zone text
)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.create_organisation(p_organisation_id, p_name, p_country, p_language, p_time_zone);
end;

-- Access -------------------------------------------------------------------------------------------------------------

alter table public.organisations enable row level security;
alter table public.memberships enable row level security;
alter table public.invitations enable row level security;
alter table private.role_permissions enable row level security;
alter table private.role_ranks enable row level security;
alter table private.organisation_keys enable row level security;

revoke all on public.organisations, public.memberships, public.invitations from public, anon, authenticated, service_role;
grant select on public.organisations, public.memberships to authenticated;
grant update (name, country, language, time_zone) on public.organisations to authenticated;
grant select (organisation_id, id, email, role, invited_by, expires_at, accepted_at, revoked_at, created_at)
  on public.invitations to authenticated;

create policy "Organisations can be read by their members" on public.organisations
for select to authenticated
using (id = any (array(select private.organisations_with('organisation.read'))));

create policy "Organisations can be changed by members who manage them" on public.organisations
for update to authenticated
using (id = any (array(select private.organisations_with('organisation.manage'))))
with check (id = any (array(select private.organisations_with('organisation.manage'))));

create policy "Memberships can be read by members who may, and by oneself" on public.memberships
for select to authenticated
using (
  organisation_id = any (array(select private.organisations_with('members.read')))
  or user_id = (select auth.uid())
);

create policy "Invitations can be read by members who manage members" on public.invitations
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('members.manage'))));

grant execute on function private.organisations_with(text) to authenticated;

select private.open_to('authenticated', 'create_organisation');
