"""What send-alert answers: a member's quotes and sends, and the secret of an endpoint that alerts go to."""

from __future__ import annotations

from shared import alerts, auth, database, kick, settings, web
from shared.settings import Environment


def create(environment: Environment | None = None) -> web.Function:
    """The function, ready to serve. Raises SettingsError."""
    environment = settings.present() if environment is None else environment
    rest = settings.DatabaseSettings.read("member", environment)
    verifier = auth.TokenVerifier(settings.AuthSettings.read(environment), database.fetch_document)
    kicker = kick.Kicker(settings.DispatchSettings.read(environment))
    function = web.Function("send-alert", settings.WebSettings.read(environment))
    signing_key = settings.webhook_signing_key(environment)
    member = web.member(verifier, database.KeepAliveTransport(rest), rest)

    @function.endpoint("POST /", caller=member)
    def send(request: web.Request, db: database.Database) -> web.Response:
        answer = alerts.send(db, request.parse(alerts.SendAlert))
        kicker.kick()  # the dispatcher starts at once; if this fails, its timer is the safety net
        return web.accepted(answer)

    @function.endpoint("POST /quote", caller=member)
    def quote(request: web.Request, db: database.Database) -> web.Response:
        return web.ok(alerts.quote(db, request.parse(alerts.SendAlert)))

    @function.endpoint("POST /endpoint-secret", caller=member)
    def endpoint_secret(request: web.Request, db: database.Database) -> web.Response:
        """Derived, so that it can be shown again and is kept nowhere (Standard Webhooks, `whsec_`)."""
        from shared import contacts
        from shared.signatures import WebhookSigner

        endpoint = request.parse(alerts.Endpoint)
        url = contacts.endpoint_url(db, endpoint.organisation_id, endpoint.address_id)
        return web.ok({"secret": WebhookSigner(signing_key).secret(str(endpoint.organisation_id), url)})

    return function
