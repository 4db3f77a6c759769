-- Foundation: schemas, privileges, and the one way in which SQL refuses.

-- Schemas ------------------------------------------------------------------------------------------------------------

create schema if not exists private;
create schema if not exists extensions;
create extension if not exists pgcrypto with schema extensions;

comment on schema private is 'Helpers, internal tables and partitions. Never exposed by the API.';

-- Privileges ---------------------------------------------------------------------------------------------------------

revoke all on schema private from public, anon, authenticated, service_role;
revoke create on schema public from public;
grant usage on schema public to anon, authenticated, service_role;

-- only the global form has an effect; the "in schema" form of the documentation is a no-op for PUBLIC
alter default privileges for role postgres revoke execute on functions from public;

-- projects made before 30 October 2026 still grant everything in public to the API roles
alter default privileges for role postgres in schema public
  revoke all on tables from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  revoke all on sequences from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  revoke all on functions from anon, authenticated, service_role;

-- Functions ----------------------------------------------------------------------------------------------------------

-- raises SQLSTATE PT<status>: PostgREST answers with that HTTP status, and shared/database.py makes it a problem document.
-- p_code is stable; p_hint is a sentence for people; p_detail holds members (ids and figures, never personal data)
create function private.refuse(p_status integer, p_code text, p_hint text, p_detail jsonb default '{}')
returns void
language plpgsql
set search_path = ''
as $$
begin
  raise exception using
    errcode = 'PT' || p_status,
    message = p_code,
    detail = p_detail::text,
    hint = p_hint;
end
$$;

-- the first thirteen characters of a UUID version 7: 48 bits of milliseconds since 1970
create function private.time_prefix(as_of timestamptz)
returns text
language sql
immutable
set search_path = ''
as $$
  select overlay(
    lpad(to_hex(floor(extract(epoch from as_of) * 1000)::bigint), 12, '0')
    placing '-' from 9 for 0
  )
$$;

-- UUID version 7 (RFC 9562): ids that sort by time, so that inserts go to the end of their index
-- (begin atomic: a default runs as the member who writes, and a body that is text would need usage of schema private)
create function private.new_id(as_of timestamptz default clock_timestamp())
returns uuid
language sql
volatile
set search_path = ''
begin atomic
  select overlay(
    overlay(gen_random_uuid()::text placing '7' from 15)
    placing private.time_prefix(as_of) from 1
  )::uuid;
end;

-- the instant inside a UUID version 7; null for any other version
create function private.time_of(p_id uuid)
returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select case
    when substr(p_id::text, 15, 1) = '7' then
      to_timestamp(('x' || lpad(substr(replace(p_id::text, '-', ''), 1, 12), 16, '0'))::bit(64)::bigint / 1000.0)
  end
$$;

-- control characters have no place in names, subjects and titles (e-mail header injection, terminal escapes)
create function private.is_clean(p_text text)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select p_text !~ '[\x01-\x1f\x7f]' and p_text !~ U&'[\0080-\009f\2028\2029\202a-\202e\2066-\2069]'
$$;

-- opens one operation to one role: the door in public and the function of the same name behind it, to nobody else.
-- An exposed operation is always this pair, so that a caller needs no USAGE on schema private
create function private.open_to(p_role name, p_operation name)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_function regprocedure;
  v_found integer := 0;
begin
  for v_function in
    select p.oid::regprocedure
    from pg_catalog.pg_proc p
    where p.proname = p_operation
      and p.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
  loop
    execute format('revoke all on function %s from public, anon, authenticated, service_role', v_function);
    execute format('grant execute on function %s to %I', v_function, p_role);
    v_found := v_found + 1;
  end loop;
  if v_found <> 2 then
    raise exception 'operation % needs one door in public and one function in private, found %', p_operation, v_found;
  end if;
end
$$;

-- a check or a default runs as the member who writes
grant execute on function private.new_id(timestamptz), private.time_prefix(timestamptz), private.is_clean(text)
  to authenticated;
