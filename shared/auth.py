"""Who is calling: a member by the token of Supabase Auth, or our own timer by the dispatch secret."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from shared import clock, log
from shared.errors import Refusal, Unavailable
from shared.settings import AuthSettings

AUDIENCE = "authenticated"
LEEWAY_SECONDS = 10
LONGEST_TOKEN = 8192
KEYS_LIVE_SECONDS = 600
REFRESH_PAUSE_SECONDS = (
    30  # for an unknown key id: a flood of made-up ones is not passed on to the auth server
)


@dataclass(frozen=True, slots=True)
class Member:
    """A signed-in person. What they may do is decided in the database, live, never from the token."""

    user_id: UUID
    token: str = field(repr=False)


class KeySet:
    """The auth server's public keys by key id, fetched with `fetch(url) -> JSON` and kept for ten minutes."""

    def __init__(
        self, url: str, fetch: Callable[[str], bytes], *, now: Callable[[], float] = clock.system.monotonic
    ) -> None:
        self._url = url
        self._fetch = fetch
        self._now = now
        self._keys: dict[str, Any] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._lock = threading.Lock()

    def find(self, key_id: str) -> Any | None:
        """The key of this id, or None. Raises Unavailable when there is no key set to judge by."""
        age = float("inf") if self._fetched_at is None else self._now() - self._fetched_at
        if age > (KEYS_LIVE_SECONDS if key_id in self._keys else REFRESH_PAUSE_SECONDS):
            self._refresh()
        return self._keys.get(key_id)

    def _refresh(self) -> None:
        seen = self._tried_at
        with self._lock:
            if (
                self._tried_at == seen or self._tried_at is None
            ):  # else another thread did it while this one waited
                self._fetch_keys()
        if self._fetched_at is None:
            raise Unavailable("keys_unavailable", "The sign-in service did not answer. Try again.")

    def _fetch_keys(self) -> None:
        self._tried_at = self._now()
        try:
            self._keys = _keys(json.loads(self._fetch(self._url)))
        except (
            Exception
        ) as error:  # whatever is wrong with the answer, the known keys stay good until the next try
            log.log.warning("keys_not_refreshed", error)
            if self._fetched_at is None:
                return
        self._fetched_at = self._tried_at


def _keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Public keys for signatures by id. Symmetric keys and unknown kinds have no place in a public set."""
    from jwt import PyJWK

    allowed = {("EC", "P-256"): "ES256", ("RSA", None): "RS256"}
    found = {}
    for record in document.get("keys", []):
        algorithm = allowed.get((record.get("kty"), record.get("crv")))
        if algorithm and record.get("kid") and record.get("alg", algorithm) == algorithm:
            found[record["kid"]] = PyJWK.from_dict(record, algorithm=algorithm)
    return found


def refused(reason: str) -> Refusal:
    """401 with the challenge of RFC 6750, section 3."""
    challenge = {"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{reason}"'}
    return Refusal(
        "unauthenticated", f"The access token was not accepted: {reason}.", status=401, headers=challenge
    )


class TokenVerifier:
    """Turns a bearer token into a Member. The algorithm comes from our key record, never from the token."""

    def __init__(self, settings: AuthSettings, fetch: Callable[[str], bytes]) -> None:
        self._settings = settings
        self._keys = KeySet(settings.jwks_url, fetch)

    def verify(self, token: str) -> Member:
        """The member who holds this token. Raises Refusal 401, or Unavailable when the keys can't be had."""
        import jwt

        if len(token) > LONGEST_TOKEN:
            raise refused("it is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise refused("it is not a JSON web token") from None
        key, algorithm = self._key(header)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=AUDIENCE,
                issuer=self._settings.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
        except jwt.PyJWTError as error:
            raise refused(_REASONS.get(type(error).__name__, "it is not valid")) from None
        return _member(claims, token)

    def _key(self, header: Mapping[str, Any]) -> tuple[Any, str]:
        key_id = header.get("kid")
        secret = self._settings.jwt_secret
        if secret is not None and header.get("alg") == "HS256":
            return secret, "HS256"  # an older project; the public keys are never used with HS256
        key = self._keys.find(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise refused("its signing key is unknown")
        return key, str(key.algorithm_name)


# the reasons name what to look at, never a value of the token
_REASONS = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "it is from another issuer",
    "InvalidSignatureError": "its signature is wrong",
    "InvalidAlgorithmError": "its algorithm is not that of its key",
    "MissingRequiredClaimError": "it lacks one of exp, sub, aud and iss",
}


def _member(claims: Mapping[str, Any], token: str) -> Member:
    if claims.get("role") != "authenticated" or claims.get("is_anonymous"):
        raise refused("it is not a member's")
    try:
        return Member(UUID(claims["sub"]), token)
    except (ValueError, AttributeError, TypeError):
        raise refused("its subject is not a member") from None


def bearer(authorization: str | None) -> str:
    """The token of an Authorization header. Raises Refusal 401."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refusal(
            "unauthenticated",
            "Send the access token as `Authorization: Bearer <token>`.",
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
        )
    return token.strip()


def check_secret(given: str, secret: str) -> None:
    """Compares in constant time. Raises Refusal 401."""
    if not hmac.compare_digest(given.encode(errors="surrogatepass"), secret.encode()):
        raise refused("it is not the dispatch secret")
