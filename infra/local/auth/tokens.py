"""Access tokens (ES256, one hour) with the claims of Supabase Auth, and the check of a caller's token."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt

from infra.local.settings import KEY_ID, Settings

LIFETIME_SECONDS = 3600
AUDIENCE = "authenticated"


class NotAuthorised(Exception):
    """The caller's token is missing, forged or too old."""


@dataclass(slots=True, frozen=True)
class Issuer:
    """Signs with the home's private key; accepts what it signed and the API keys' role tokens (HS256)."""

    private_key: str
    public_key: jwt.PyJWK
    jwt_secret: str
    issuer: str

    @classmethod
    def of(cls, settings: Settings) -> Issuer:
        return cls(
            private_key=settings.secrets.jwt_private_key,
            public_key=jwt.PyJWK(settings.public_keys()[0]),
            jwt_secret=settings.secrets.jwt_secret,
            issuer=settings.jwt_issuer,
        )

    def sign(self, user: dict[str, Any], session_id: UUID) -> str:
        """A user's access token. `user` is as `users.as_json` gives it."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": user["id"],
            "aud": AUDIENCE,
            "exp": now + LIFETIME_SECONDS,
            "iat": now,
            "email": user["email"],
            "phone": user["phone"],
            "app_metadata": user["app_metadata"],
            "user_metadata": user["user_metadata"],
            "role": user["role"],
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}],
            "session_id": str(session_id),
            "is_anonymous": False,
        }
        return jwt.encode(claims, self.private_key, algorithm="ES256", headers={"kid": KEY_ID})

    def user_claims(self, authorization: str) -> dict[str, Any]:
        """The claims of a signed-in user. Raises NotAuthorised."""
        try:
            return jwt.decode(
                _bearer(authorization),
                self.public_key,
                algorithms=["ES256"],
                audience=AUDIENCE,
                issuer=self.issuer,
            )
        except jwt.PyJWTError as error:
            raise NotAuthorised from error

    def require_service(self, authorization: str) -> None:
        """Only the secret key, for which the gateway puts the service role's token. Raises NotAuthorised."""
        try:
            claims = jwt.decode(_bearer(authorization), self.jwt_secret, algorithms=["HS256"])
        except jwt.PyJWTError as error:
            raise NotAuthorised from error
        if claims.get("role") != "service_role":
            raise NotAuthorised


def new_refresh_token() -> str:
    return secrets.token_urlsafe(24)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthorised
    return token
