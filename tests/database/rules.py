"""The rules of the schema: each a query that lists what breaks it, what to do instead, and a violation to prove it."""

from __future__ import annotations

from dataclasses import dataclass

API_ROLES = "'anon', 'authenticated', 'service_role'"

# tables whose rows belong to an organisation
TENANT = """tenant as (
  select c.oid, c.relname, c.relnamespace from pg_class c
  where c.relkind in ('r', 'p') and not c.relispartition
    and c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)
    and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'organisation_id' and not a.attisdropped)
)"""
# what we wrote: not what extensions brought
OURS = """ours as (
  select p.* from pg_proc p
  where p.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
    and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
)"""


@dataclass(frozen=True, slots=True)
class Rule:
    """`query` names what breaks the rule; `violation` is SQL after which it must name something."""

    name: str
    instead: str
    query: str
    violation: str


RULES = [
    Rule(
        "row-level security is on for every table and partition",
        "alter table ... enable row level security, in the migration that makes the table (children too)",
        """select c.oid::regclass::text from pg_class c
           where c.relkind in ('r', 'p') and not c.relrowsecurity
             and c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)""",
        "alter table public.contacts disable row level security",
    ),
    Rule(
        "row-level security is on for the parents of partitions",
        "alter table <parent> enable row level security: the official lints never look at partitioned parents",
        """select c.oid::regclass::text from pg_class c
           where c.relkind = 'p' and not c.relrowsecurity and c.relnamespace = 'public'::regnamespace""",
        "alter table public.deliveries disable row level security",
    ),
    Rule(
        "every function pins its search path",
        "add: set search_path = '', and qualify every name",
        f"""with {OURS} select oid::regprocedure::text from ours
            where not coalesce(proconfig, '{{}}') && array['search_path=""', 'search_path=']""",
        "create function private.loose() returns integer language sql as 'select 1'",
    ),
    Rule(
        "security definer functions live in schema private",
        "move it to private and open it with a security invoker function of the same name in public (private.open_to)",
        "select p.oid::regprocedure::text from pg_proc p where p.prosecdef and p.pronamespace = 'public'::regnamespace",
        """create function public.powerful() returns integer language sql security definer set search_path = ''
           as 'select 1'""",
    ),
    Rule(
        "partitions live in schema private",
        "create table private.<child> partition of public.<parent>: a child in public would be a table of the API",
        "select c.oid::regclass::text from pg_class c where c.relispartition and c.relnamespace = 'public'::regnamespace",
        """create table public.deliveries_1999 partition of public.deliveries
           for values from ('00000000-0000-0000-0000-000000000000') to ('00000001-0000-0000-0000-000000000000')""",
    ),
    Rule(
        "policies are for authenticated alone",
        "write: to authenticated",
        "select format('%s on %s', polname, polrelid::regclass) from pg_policy"
        " where polroles <> array['authenticated'::regrole::oid]",
        'create policy "Open" on public.contacts for select to anon using (false)',
    ),
    Rule(
        "a policy is for one operation",
        "one policy each for select, insert, update and delete, never: for all",
        "select format('%s on %s', polname, polrelid::regclass) from pg_policy where polcmd = '*'",
        'create policy "All" on public.contacts for all to authenticated using (false)',
    ),
    Rule(
        "a policy for update has using and with check",
        "repeat the tenant in with check: else an update without where moves rows to another tenant",
        """select format('%s on %s', polname, polrelid::regclass) from pg_policy
           where (polcmd = 'w' and (polqual is null or polwithcheck is null
               or pg_get_expr(polwithcheck, polrelid) <> pg_get_expr(polqual, polrelid)))
             or (polcmd = 'a' and polwithcheck is null)""",
        'create policy "Moves" on public.contacts for update to authenticated using (true) with check (true and true)',
    ),
    Rule(
        "a policy calls auth.* and private.* once, not once a row",
        "wrap the call: (select auth.uid()), any (array(select private.organisations_with('...')))",
        r"""select format('%s on %s', polname, polrelid::regclass)
            from pg_policy p
            cross join lateral (
              values (pg_get_expr(polqual, polrelid)), (pg_get_expr(polwithcheck, polrelid))
            ) as e (expression)
            where regexp_replace(expression, 'SELECT\s+(auth|private)\.\w+\(', '', 'gi') ~ '\m(auth|private)\.\w+\('""",
        'create policy "Slow" on public.contacts for select to authenticated using (auth.uid() is not null)',
    ),
    Rule(
        "anon may do nothing",
        "revoke from anon: nobody who has not signed in reads, writes or calls",
        f"""with {OURS}
            select c.oid::regclass::text from pg_class c
            where c.relnamespace in ('public'::regnamespace, 'private'::regnamespace) and c.relkind in ('r', 'p', 'v', 'm', 'S')
              and (case when c.relkind = 'S' then has_sequence_privilege('anon', c.oid, 'usage, select, update')
                else has_table_privilege('anon', c.oid, 'select, insert, update, delete, truncate, references, trigger')
                  or has_any_column_privilege('anon', c.oid, 'select, insert, update, references') end)
            union all
            select oid::regprocedure::text from ours where has_function_privilege('anon', oid, 'execute')
            union all
            select 'usage of schema private' where has_schema_privilege('anon', 'private', 'usage, create')""",
        "grant select (id) on public.contacts to anon",
    ),
    Rule(
        "service_role has functions, not tables",
        "give the service an operation (private.open_to('service_role', ...)): with BYPASSRLS a grant is every tenant's rows",
        """select c.oid::regclass::text from pg_class c
           where c.relnamespace in ('public'::regnamespace, 'private'::regnamespace) and c.relkind in ('r', 'p', 'v', 'm')
             and (has_table_privilege('service_role', c.oid, 'select, insert, update, delete, truncate, references, trigger')
               or has_any_column_privilege('service_role', c.oid, 'select, insert, update, references'))""",
        "grant select on public.alerts to service_role",
    ),
    Rule(
        "schema private is closed to the API roles",
        "revoke usage: callers of a begin atomic function need none",
        f"""select rolname from pg_roles where rolname in ({API_ROLES})
              and has_schema_privilege(oid, 'private', 'usage, create')""",
        "grant usage on schema private to authenticated",
    ),
    Rule(
        "every RPC says who may call it",
        "select private.open_to('authenticated' or 'service_role', '<operation>')",
        """select p.oid::regprocedure::text from pg_proc p
           where p.pronamespace = 'public'::regnamespace and not coalesce((
             select count(*) filter (where a.grantee in ('authenticated'::regrole, 'service_role'::regrole)) = 1
               and bool_and(a.grantee in (p.proowner, 'authenticated'::regrole, 'service_role'::regrole))
             from aclexplode(p.proacl) a
           ), false)""",
        "create function public.open() returns integer language sql set search_path = '' as 'select 1'",
    ),
    Rule(
        "every RPC is a pair: a door in public, a function of the same name in private",
        "put the work into private.<operation> and call it from public.<operation>",
        f"""with {OURS} select p.oid::regprocedure::text from ours p
            where p.pronamespace = 'public'::regnamespace and not exists (
              select from ours q where q.pronamespace = 'private'::regnamespace and q.proname = p.proname
                and q.proargtypes = p.proargtypes and q.prosqlbody is null
                and q.proacl::text[] = p.proacl::text[]
            )""",
        """create function public.lonely() returns integer language sql set search_path = ''
           begin atomic select 1; end""",
    ),
    Rule(
        "what runs as the member finds schema private without usage of it",
        "write the body as begin atomic: names in a text are looked up as the member, who may not look there",
        f"""with {OURS} select p.oid::regprocedure::text from ours p
            where p.pronamespace = 'private'::regnamespace and not p.prosecdef
              and has_function_privilege('authenticated', p.oid, 'execute') and p.prosrc ~ 'private\\.'""",
        """create function private.asked() returns text language sql set search_path = ''
           as 'select private.time_prefix(now())'; grant execute on function private.asked() to authenticated""",
    ),
    Rule(
        "an RPC answers one value",
        "return one json document or page by key: a set is cut at 1000 rows without a word",
        f"""with {OURS} select p.oid::regprocedure::text from ours p
            where p.pronamespace = 'public'::regnamespace
              and (p.proretset or p.prorettype not in ('json'::regtype, 'jsonb'::regtype))""",
        "create function public.many() returns setof integer language sql set search_path = '' as 'select 1'",
    ),
    Rule(
        "a definer function that members may call authorises first",
        "start with: perform private.authorise(p_organisation_id, '<permission>'), or refuse when auth.uid() is null",
        f"""with {OURS} select p.oid::regprocedure::text from ours p
            where p.pronamespace = 'private'::regnamespace and p.prosecdef
              and exists (select from ours q where q.pronamespace = 'public'::regnamespace and q.proname = p.proname)
              and has_function_privilege('authenticated', p.oid, 'execute')
              and p.prosrc !~ 'begin\\s+(perform private\\.authorise\\(|if auth\\.uid\\(\\) is null then|if p_user_id is distinct from auth\\.uid\\(\\) then\\s+perform private\\.authorise\\()'""",
        """create or replace function private.alert_report(p_organisation_id uuid, p_alert_id uuid) returns jsonb
           language plpgsql stable security definer set search_path = '' as 'begin return null; end'""",
    ),
    Rule(
        "a foreign key between tenant tables holds organisation_id on both sides",
        "foreign key (organisation_id, x_id) references ... (organisation_id, id): a simple one accepts another tenant's row",
        f"""with {TENANT}
            select format('%s on %s', k.conname, k.conrelid::regclass) from pg_constraint k
            join tenant child on child.oid = k.conrelid
            join tenant parent on parent.oid = k.confrelid
            where k.contype = 'f' and not exists (
              select from unnest(k.conkey, k.confkey) as pair (here, there)
              join pg_attribute a on a.attrelid = k.conrelid and a.attnum = pair.here
              join pg_attribute b on b.attrelid = k.confrelid and b.attnum = pair.there
              where a.attname = 'organisation_id' and b.attname = 'organisation_id'
            )""",
        """alter table public.alerts add constraint simple foreign key (template_id)
           references public.simple (id) not valid""",
    ),
    Rule(
        "uniqueness on a tenant table starts with organisation_id",
        "unique (organisation_id, ...): a global one tells one tenant what another has",
        f"""with {TENANT}
            select i.indexrelid::regclass::text from pg_index i
            join tenant t on t.oid = i.indrelid
            join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
            where i.indisunique and a.attname <> 'organisation_id'
              -- callbacks know an alert's id only, 74 bits of it random: nobody guesses one, and a clash tells nothing
              and i.indexrelid <> 'public.alerts_id_key'::regclass""",
        # partial, so that it can be built whatever the other tests have left in the table
        "create unique index global_name on public.groups (name) where name = 'only this one'",
    ),
    Rule(
        "the columns that a policy compares lead an index",
        "create an index that starts with the column: else every read is a scan of all tenants",
        """with compared as (
             select distinct p.polrelid, a.attnum, a.attname
             from pg_policy p
             join pg_attribute a on a.attrelid = p.polrelid and a.attnum > 0
             where coalesce(pg_get_expr(p.polqual, p.polrelid), '') || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '')
               ~ ('(^|[( ])' || a.attname || ' =')
           )
           select format('%s.%s', polrelid::regclass, attname) from compared c
           where not exists (select from pg_index i where i.indrelid = c.polrelid and i.indkey[0] = c.attnum)""",
        "drop index public.memberships_user",
    ),
    Rule(
        "nothing is granted by default",
        "alter default privileges ... revoke: each object grants what it needs",
        f"""select format('%s in %s for %s', defaclobjtype, coalesce(n.nspname, 'every schema'), a.grantee::regrole)
            from pg_default_acl d
            left join pg_namespace n on n.oid = d.defaclnamespace
            cross join lateral aclexplode(d.defaclacl) a
            where a.grantee = 0 or a.grantee::regrole::text in ({API_ROLES})""",
        "alter default privileges for role postgres in schema public grant select on tables to authenticated",
    ),
    Rule(
        "a new function is closed to everybody",
        "alter default privileges for role postgres revoke execute on functions from public (the global form)",
        """select 'functions that postgres makes' where not exists (
             select from pg_default_acl d
             where d.defaclrole = 'postgres'::regrole and d.defaclobjtype = 'f' and d.defaclnamespace = 0
           )""",
        "alter default privileges for role postgres grant execute on functions to public",
    ),
    Rule(
        "nobody truncates",
        "revoke truncate: row-level security does not hold it",
        f"""select format('%s to %s', c.oid::regclass, r.rolname) from pg_class c
            cross join pg_roles r
            where c.relkind in ('r', 'p') and c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)
              and r.rolname in ({API_ROLES}) and has_table_privilege(r.oid, c.oid, 'truncate')""",
        "grant truncate on public.groups to authenticated",
    ),
    Rule(
        "a member never writes ids, tenants, dates of creation, roles or credits",
        "grant insert and update by column; only an insert names its organisation_id, which with check guards",
        """select format('%s of %s.%s', g.privilege_type, g.table_name, g.column_name)
           from information_schema.column_privileges g
           where g.grantee = 'authenticated' and g.table_schema = 'public' and g.privilege_type in ('INSERT', 'UPDATE')
             and (g.column_name in ('id', 'role', 'user_id', 'available', 'reserved', 'restricted_at', 'country_code')
               or g.column_name ~ '^created_|_hash$'
               or (g.column_name = 'organisation_id' and g.privilege_type = 'UPDATE'))""",
        "grant update (organisation_id) on public.contacts to authenticated",
    ),
    Rule(
        "a view runs as its reader",
        "create view ... with (security_invoker = on)",
        """select c.oid::regclass::text from pg_class c
           where c.relkind = 'v' and c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)
             and not coalesce(c.reloptions, '{}') && array['security_invoker=on', 'security_invoker=true']""",
        "create view public.everybody as select * from public.contacts",
    ),
    Rule(
        "there is no materialised view in the API",
        "put it into private and read it through an operation: row-level security does not hold it",
        "select c.oid::regclass::text from pg_class c where c.relkind = 'm' and c.relnamespace = 'public'::regnamespace",
        "create materialized view public.counted as select count(*) from public.contacts",
    ),
    Rule(
        "a partition has no grants of its own",
        "revoke all on the child: who may read the parent reads through it",
        f"""select c.oid::regclass::text from pg_class c
            cross join pg_roles r
            where c.relispartition and c.relkind = 'r' and r.rolname in ({API_ROLES})
              and (has_table_privilege(r.oid, c.oid, 'select, insert, update, delete')
                or has_any_column_privilege(r.oid, c.oid, 'select, insert, update'))""",
        "grant select on private.a_partition to authenticated",
    ),
    Rule(
        "every foreign key is the start of an index",
        "create an index that starts with the key's columns: else a delete above scans the table",
        """select format('%s on %s', k.conname, k.conrelid::regclass) from pg_constraint k
           where k.contype = 'f' and k.connamespace in ('public'::regnamespace, 'private'::regnamespace)
             -- the price list is never deleted
             and k.confrelid <> 'public.price_lists'::regclass
             and not exists (
               select from pg_index i where i.indrelid = k.conrelid
                 and (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey
             )""",
        "drop index public.alerts_template",
    ),
    Rule(
        "retries for ever are never raised by hand",
        "private.refuse with a 4xx: PostgREST repeats what ends in SQLSTATE 40001 or 40P01",
        f"with {OURS} select oid::regprocedure::text from ours where prosrc ~ '40001|40P01|serialization_failure|deadlock_detected'",
        """create function private.retried() returns void language plpgsql set search_path = ''
           as $$ begin raise exception using errcode = '40001'; end $$""",
    ),
    Rule(
        "guards compare with is distinct from",
        "write: is distinct from; <> lets null through",
        f"""with {OURS} select oid::regprocedure::text from ours
            where prorettype = 'trigger'::regtype and prosrc ~ '\\m(old|new)\\.\\w+\\s*<>'
              -- a key: never null
              and prosrc !~ 'm\\.user_id <> old\\.user_id'""",
        """create function private.guard() returns trigger language plpgsql set search_path = ''
           as $$ begin if new.role <> old.role then return null; end if; return new; end $$""",
    ),
]  # fmt: skip

# what a violation needs before it
PREPARE = {
    "alter table public.alerts add constraint simple": "create table public.simple (id uuid primary key, organisation_id uuid)",
    "grant select on private.a_partition": """do $$ begin execute format('alter table %s rename to a_partition',
      (select min(c.oid::regclass::text) from pg_class c where c.relispartition and c.relkind = 'r'
       and c.relnamespace = 'private'::regnamespace)); end $$""",
}
