-- Members: how they come (by invitation), change and go; an organisation keeps an owner.

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

select private.open_to('authenticated', 'invite_member');
select private.open_to('authenticated', 'revoke_invitation');
select private.open_to('authenticated', 'accept_invitation');
select private.open_to('authenticated', 'change_member_role');
select private.open_to('authenticated', 'remove_member');
select private.open_to('authenticated', 'transfer_organisation');
