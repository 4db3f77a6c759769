-- Answers: what people send us and press, kept once each, never lost.

-- Tables -------------------------------------------------------------------------------------------------------------

-- messages that people send us; matched to alerts and opt-outs later, never lost
create table private.inbound_messages (
  provider text not null,
  provider_id text not null,
  channel public.channel not null,
  sender text not null,
  recipient text not null,
  body text not null check (char_length(body) <= 4000),
  opt_out_type text,
  received_at timestamptz not null default now(),
  primary key (provider, provider_id)
);

create table public.responses (
  organisation_id uuid not null,
  alert_id uuid not null,
  number integer not null,
  id uuid not null default private.new_id(),
  contact_id uuid not null,
  source text not null check (source in ('key_press', 'sms_reply', 'link')),
  source_id text not null,
  option text not null check (char_length(option) between 1 and 100),
  is_clear boolean not null,
  received_at timestamptz not null default now(),
  primary key (organisation_id, id),
  unique (organisation_id, source, source_id, option),
  foreign key (organisation_id, alert_id) references public.alerts (organisation_id, id) on delete cascade
);
create index responses_alert on public.responses (organisation_id, alert_id, number);

-- Operations ---------------------------------------------------------------------------------------------------------

create function private.record_inbound(p_messages jsonb)
returns jsonb
language sql
security definer
set search_path = ''
as $$
  with stored as (
    insert into private.inbound_messages (
      provider, provider_id, channel, sender, recipient, body, opt_out_type, received_at
    )
    select
      m.provider, m.provider_id, m.channel, m.sender, m.recipient, left(coalesce(m.body, ''), 4000), m.opt_out_type,
      coalesce(m.received_at, now())
    from jsonb_to_recordset(p_messages) as m (
      provider text, provider_id text, channel public.channel, sender text, recipient text, body text, opt_out_type text,
      received_at timestamptz
    )
    on conflict (provider, provider_id) do nothing
    returning provider_id
  )
  select jsonb_build_object(
    'stored', (select count(*) from stored),
    'repeated', jsonb_array_length(p_messages) - (select count(*) from stored)
  )
$$;

-- key 1 acknowledges; any other is kept as unclear and changes no state
create function private.record_answer(p_answer jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_delivery public.deliveries;
  v_option text := left(coalesce(nullif(p_answer ->> 'option', ''), 'none'), 100);
  v_is_clear boolean;
begin
  select d.* into v_delivery
  from public.alerts a
  join public.deliveries d on d.organisation_id = a.organisation_id and d.alert_id = a.id
  where a.id = substr(p_answer ->> 'delivery_id', 1, 32)::uuid
    and d.number = substr(p_answer ->> 'delivery_id', 34)::integer
  for update of d;
  if v_delivery.alert_id is null then
    return jsonb_build_object('recorded', false, 'clear', false);
  end if;
  v_is_clear := v_option = '1';

  insert into public.responses (
    organisation_id, alert_id, number, contact_id, source, source_id, option, is_clear, received_at
  )
  values (
    v_delivery.organisation_id, v_delivery.alert_id, v_delivery.number, v_delivery.contact_id, p_answer ->> 'source',
    coalesce(p_answer ->> 'provider_id', p_answer ->> 'delivery_id'), v_option, v_is_clear, v_now
  )
  on conflict (organisation_id, source, source_id, option) do nothing;
  if not found then
    return jsonb_build_object('recorded', false, 'clear', v_is_clear);
  end if;
  insert into public.delivery_events (organisation_id, alert_id, number, at, kind, state, attempt, provider_id, status)
  values (
    v_delivery.organisation_id, v_delivery.alert_id, v_delivery.number, v_now, 'answer',
    case when v_is_clear then 'answered' else v_delivery.state end, (p_answer ->> 'attempt')::smallint,
    p_answer ->> 'provider_id', case when v_is_clear then 'clear' else 'unclear' end
  );

  if v_is_clear and v_delivery.state in (
    'planned', 'claimed', 'outcome_unknown', 'handed_over', 'sent', 'delivered', 'undelivered', 'no_receipt', 'dead_letter'
  ) then
    update public.deliveries
    set state = 'answered', reason = null, claimable_at = null, state_changed_at = v_now, answered_at = v_now,
      handed_over_at = coalesce(handed_over_at, v_now), sent_at = coalesce(sent_at, v_now),
      delivered_at = coalesce(delivered_at, v_now)
    where organisation_id = v_delivery.organisation_id and alert_id = v_delivery.alert_id and number = v_delivery.number;
    if v_delivery.handed_over_at is null and v_delivery.state in ('planned', 'claimed', 'outcome_unknown') then
      perform private.settle_credits(
        jsonb_build_array(jsonb_build_object(
          'organisation_id', v_delivery.organisation_id, 'alert_id', v_delivery.alert_id, 'settle', v_delivery.cost
        )),
        'answer', gen_random_uuid()::text
      );
    end if;
  end if;
  return jsonb_build_object('recorded', true, 'clear', v_is_clear);
end
$$;

-- Doors --------------------------------------------------------------------------------------------------------------

create function public.record_inbound(p_messages jsonb)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.record_inbound(p_messages);
end;

create function public.record_answer(p_answer jsonb)
returns jsonb language sql security invoker set search_path = ''
begin atomic
  select private.record_answer(p_answer);
end;

-- Access -------------------------------------------------------------------------------------------------------------

alter table private.inbound_messages enable row level security;
alter table public.responses enable row level security;

revoke all on public.responses from public, anon, authenticated, service_role;
grant select on public.responses to authenticated;

create policy "Responses can be read by members who may read deliveries" on public.responses
for select to authenticated
using (organisation_id = any (array(select private.organisations_with('deliveries.read'))));

select private.open_to('service_role', 'record_inbound');
select private.open_to('service_role', 'record_answer');
