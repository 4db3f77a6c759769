-- Organisations: tenants, members, what a role may do, invitations.

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

-- Guards -------------------------------------------------------------------------------------------------------------

-- the last owner can't leave, be demoted or deleted; the organisation's row serialises two who try at once
create function private.keep_an_owner()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if tg_op = 'UPDATE' and new.role = 'owner' then
    return new;
  end if;
  perform from public.organisations o where o.id = old.organisation_id for update;
  if found and old.role = 'owner' and not exists (
    select from public.memberships m
    where m.organisation_id = old.organisation_id and m.role = 'owner' and m.user_id <> old.user_id
  ) then
    perform private.refuse(409, 'last_owner', 'An organisation keeps one owner: transfer it or dissolve it first.');
  end if;
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$$;

create trigger keep_an_owner
before update of role or delete on public.memberships
for each row when (old.role = 'owner')
execute function private.keep_an_owner();

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

-- the token is in this answer only; the database keeps its hash
create function private.invite_member(p_organisation_id uuid, p_email text, p_role public.member_role)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_token text := encode(extensions.gen_random_bytes(32), 'hex');
  v_invitation public.invitations;
begin
  perform private.authorise(p_organisation_id, 'members.manage');
  perform private.authorise_role(p_organisation_id, p_role);
  if coalesce(lower(p_email), '') !~ '^[^@\s]+@[^@\s]+$' or char_length(p_email) > 254 then
    perform private.refuse(422, 'email_invalid', 'Give the e-mail address of the person to invite.');
  end if;
  insert into public.invitations (organisation_id, email, role, token_hash, invited_by, expires_at)
  values (
    p_organisation_id, lower(p_email), p_role, extensions.digest(v_token, 'sha256'), auth.uid(),
    now() + interval '72 hours'
  )
  returning * into v_invitation;
  return jsonb_build_object(
    'invitation_id', v_invitation.id, 'token', v_token, 'expires_at', v_invitation.expires_at
  );
end
$$;

create function private.revoke_invitation(p_organisation_id uuid, p_invitation_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.authorise(p_organisation_id, 'members.manage');
  update public.invitations
  set revoked_at = coalesce(revoked_at, now())
  where organisation_id = p_organisation_id and id = p_invitation_id and accepted_at is null;
  if not found then
    perform private.refuse(404, 'invitation_not_found', 'No open invitation has this id.');
  end if;
  return jsonb_build_object('invitation_id', p_invitation_id, 'revoked', true);
end
$$;

-- unknown, used, revoked, expired and other people's tokens all look the same
create function private.accept_invitation(p_token text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_invitation public.invitations;
begin
  if auth.uid() is null then
    perform private.refuse(401, 'sign_in_needed', 'Sign in first: this needs your access token.');
  end if;
  select * into v_invitation
  from public.invitations i
  where i.token_hash = extensions.digest(p_token, 'sha256')
    and i.email = lower(auth.jwt() ->> 'email')
    and i.accepted_at is null and i.revoked_at is null and i.expires_at > now()
  for update;
  -- the inviter must still be allowed to grant this role at the moment of acceptance
  if v_invitation.id is null or not exists (
    select from public.memberships m
    join private.role_permissions r on r.role = m.role and r.permission = 'members.manage'
    where m.organisation_id = v_invitation.organisation_id
      and m.user_id = v_invitation.invited_by
      and private.rank_of(m.role) >= private.rank_of(v_invitation.role)
  ) then
    perform private.refuse(404, 'invitation_not_found', 'This invitation is unknown, used or expired: ask for a new one.');
  end if;
  update public.invitations
  set accepted_at = now()
  where organisation_id = v_invitation.organisation_id and id = v_invitation.id;
  -- an invitation never changes the role of somebody who is already a member
  insert into public.memberships (organisation_id, user_id, role)
  values (v_invitation.organisation_id, auth.uid(), v_invitation.role)
  on conflict (organisation_id, user_id) do nothing;
  return jsonb_build_object('organisation_id', v_invitation.organisation_id);
end
$$;

create function private.change_member_role(p_organisation_id uuid, p_user_id uuid, p_role public.member_role)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_before public.member_role;
begin
  perform private.authorise(p_organisation_id, 'members.manage');
  perform private.authorise_role(p_organisation_id, p_role);
  select m.role into v_before
  from public.memberships m
  where m.organisation_id = p_organisation_id and m.user_id = p_user_id
  for update;
  if v_before is null then
    perform private.refuse(404, 'member_not_found', 'No member of this organisation has this id.');
  end if;
  if v_before = 'owner' then
    perform private.refuse(403, 'owner_only_by_transfer', 'An owner''s role changes by transferring the organisation only.');
  end if;
  update public.memberships
  set role = p_role
  where organisation_id = p_organisation_id and user_id = p_user_id;
  return jsonb_build_object('user_id', p_user_id, 'role', p_role);
end
$$;

-- a member may always leave; removing another needs members.manage and a rank at least as high
create function private.remove_member(p_organisation_id uuid, p_user_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_role public.member_role;
begin
  if p_user_id is distinct from auth.uid() then
    perform private.authorise(p_organisation_id, 'members.manage');
  else
    perform private.authorise(p_organisation_id, 'organisation.read');
  end if;
  select m.role into v_role
  from public.memberships m
  where m.organisation_id = p_organisation_id and m.user_id = p_user_id;
  if v_role is null then
    perform private.refuse(404, 'member_not_found', 'No member of this organisation has this id.');
  end if;
  if v_role <> 'owner' and p_user_id is distinct from auth.uid() then
    perform private.authorise_role(p_organisation_id, v_role);
  end if;
  if v_role = 'owner' and p_user_id is distinct from auth.uid() then
    perform private.refuse(403, 'owner_only_by_transfer', 'An owner leaves by themselves or by transferring the organisation.');
  end if;
  delete from public.memberships
  where organisation_id = p_organisation_id and user_id = p_user_id;
  return jsonb_build_object('user_id', p_user_id, 'removed', true);
end
$$;

-- the new owner first, then the old one steps down: there is never none
create function private.transfer_organisation(p_organisation_id uuid, p_user_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.authorise(p_organisation_id, 'organisation.manage');
  -- locked: of two transfers at once the second finds no owner any more
  perform from public.memberships m
  where m.organisation_id = p_organisation_id and m.user_id = auth.uid() and m.role = 'owner'
  for update;
  if not found then
    perform private.refuse(403, 'owner_needed', 'Only an owner transfers the organisation.');
  end if;
  if p_user_id is not distinct from auth.uid() then
    perform private.refuse(422, 'transfer_to_self', 'Name another member: you own the organisation already.');
  end if;
  update public.memberships
  set role = 'owner'
  where organisation_id = p_organisation_id and user_id = p_user_id;
  if not found then
    perform private.refuse(404, 'member_not_found', 'No member of this organisation has this id.');
  end if;
  update public.memberships
  set role = 'admin'
  where organisation_id = p_organisation_id and user_id = auth.uid();
  return jsonb_build_object('owner', p_user_id);
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

create function public.invite_member(p_organisation_id uuid, p_email text, p_role public.member_role)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.invite_member(p_organisation_id, p_email, p_role);
end;

create function public.revoke_invitation(p_organisation_id uuid, p_invitation_id uuid)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.revoke_invitation(p_organisation_id, p_invitation_id);
end;

create function public.accept_invitation(p_token text)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.accept_invitation(p_token);
end;

create function public.change_member_role(p_organisation_id uuid, p_user_id uuid, p_role public.member_role)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.change_member_role(p_organisation_id, p_user_id, p_role);
end;

create function public.remove_member(p_organisation_id uuid, p_user_id uuid)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.remove_member(p_organisation_id, p_user_id);
end;

create function public.transfer_organisation(p_organisation_id uuid, p_user_id uuid)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.transfer_organisation(p_organisation_id, p_user_id);
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

do $$
declare
  v_name text;
begin
  foreach v_name in array array[
    'create_organisation', 'invite_member', 'revoke_invitation', 'accept_invitation', 'change_member_role',
    'remove_member', 'transfer_organisation'
  ]
  loop
    perform private.open_to('authenticated', v_name);
  end loop;
end
$$;
