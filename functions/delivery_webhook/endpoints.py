"""What delivery-webhook answers: receipts, key presses and inbound messages, each proved by its signature."""

from __future__ import annotations

from functions.delivery_webhook import resend, twilio
from shared import database, receipts, settings, signatures, web
from shared.settings import Environment

DATABASE_TIMEOUT_SECONDS = 10  # PostgreSQL stops at 8, Twilio hangs up after 15


def create(environment: Environment | None = None) -> web.Function:
    """The function, ready to serve. Raises SettingsError."""
    environment = settings.present() if environment is None else environment
    rest = settings.DatabaseSettings.read("service", environment)
    secrets = settings.CallbackSettings.read(environment)
    transport = database.KeepAliveTransport(rest, timeout_seconds=DATABASE_TIMEOUT_SECONDS)
    function = web.Function("delivery-webhook", settings.WebSettings.read(environment))
    provider = web.callback(transport, rest)
    gatherer = receipts.Gatherer()
    door = twilio.Door(
        signatures.TwilioVerifier(f"{secrets.functions_url}/delivery-webhook", *secrets.twilio_auth_tokens),
        signatures.LinkSigner(*secrets.link_secrets),
    )
    resend_verifier = signatures.ResendVerifier(*secrets.resend_webhook_secrets)

    @function.endpoint("POST /twilio/message", caller=provider)
    def message(request: web.Request, db: database.Database) -> web.Response:
        gatherer.submit(db, twilio.message_receipt(door.checked(request)).row())
        return web.no_content()

    @function.endpoint("POST /twilio/call", caller=provider)
    def call(request: web.Request, db: database.Database) -> web.Response:
        gatherer.submit(db, twilio.call_receipt(door.checked(request)).row())
        return web.no_content()

    @function.endpoint("POST /twilio/gather", caller=provider)
    def gather(request: web.Request, db: database.Database) -> web.Response:
        return twilio.answer(door.checked(request), db)

    @function.endpoint("POST /twilio/inbound", caller=provider)
    def inbound(request: web.Request, db: database.Database) -> web.Response:
        twilio.keep_inbound(door.signed(request), db)
        return web.no_content()

    @function.endpoint("POST /resend", caller=provider)
    def resend_event(request: web.Request, db: database.Database) -> web.Response:
        receipt = resend.receipt(request, resend_verifier)
        if receipt is not None:
            gatherer.submit(db, receipt.row())
        return web.no_content()

    return function
