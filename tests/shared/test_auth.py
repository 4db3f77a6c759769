"""Members' tokens: only what our own key record signs with its own algorithm is believed."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from shared.auth import KEYS_LIVE_SECONDS, REFRESH_PAUSE_SECONDS, KeySet, TokenVerifier, bearer, check_secret
from shared.errors import AppError, Refusal, Unavailable
from shared.settings import AuthSettings

ISSUER = "https://project.example.com/auth/v1"
SECRET = "an-old-project-secret-0123456789abcdef"
ALICE = uuid4()

EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _record(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    record: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return record | {"kid": kid, "use": "sig"} | more


KEYS = {"keys": [_record(EC_KEY, "ec"), _record(RSA_KEY, "rsa", alg="RS256")]}


class Source:
    """The auth server's key set, and how often it was asked for."""

    def __init__(self, document: Any = None) -> None:
        self.document = KEYS if document is None else document
        self.asked = 0
        self.fails = False

    def __call__(self, url: str) -> bytes:
        assert url.endswith("/jwks.json")
        self.asked += 1
        if self.fails:
            raise Unavailable("keys_unavailable", "no")
        return json.dumps(self.document).encode()


def _verifier(secret: str | None = None, source: Source | None = None) -> TokenVerifier:
    return TokenVerifier(AuthSettings("https://x.example/jwks.json", ISSUER, secret), source or Source())


def _claims(**changes: Any) -> dict[str, Any]:
    claims = {
        "sub": str(ALICE),
        "aud": "authenticated",
        "iss": ISSUER,
        "role": "authenticated",
        "exp": int(time.time()) + 600,
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def _token(key: Any = EC_KEY, algorithm: str = "ES256", kid: str | None = "ec", **changes: Any) -> str:
    return jwt.encode(_claims(**changes), key, algorithm, headers={"kid": kid} if kid else None)


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _public_pem() -> bytes:
    return EC_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _hmac_by_hand(header: dict[str, Any], key: bytes) -> str:
    """What PyJWT refuses to make: a token signed with a public key as if that were a secret."""
    import hashlib
    import hmac

    text = f"{_part(header)}.{_part(_claims())}"
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(EC_KEY, "ES256", "ec"), (RSA_KEY, "RS256", "rsa")])
def test_a_members_token_is_believed(key: Any, algorithm: str, kid: str) -> None:
    token = _token(key, algorithm, kid)
    member = _verifier().verify(token)
    assert (member.user_id, member.token) == (ALICE, token)
    assert token not in repr(member)


def test_an_older_projects_token_is_believed_only_with_its_secret() -> None:
    token = _token(SECRET, "HS256", None)
    assert _verifier(SECRET).verify(token).user_id == ALICE
    with pytest.raises(Refusal):
        _verifier(None).verify(token)
    with pytest.raises(Refusal):
        _verifier(SECRET + "x").verify(token)


FORGED: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "not a token": lambda: "garbage",
    "three empty parts": lambda: "..",
    "alg none": lambda: f"{_part({'alg': 'none', 'kid': 'ec'})}.{_part(_claims())}.",
    "alg None": lambda: f"{_part({'alg': 'None', 'kid': 'ec'})}.{_part(_claims())}.",
    "unsigned": lambda: _token().rpartition(".")[0] + ".",
    "signature cut off": lambda: _token().rpartition(".")[0],
    "signature changed": lambda: _token()[:-6] + "AAAAAA",
    "payload changed": lambda: ".".join(
        [_token().split(".")[0], _part(_claims(sub=str(uuid4()))), _token().split(".")[2]]
    ),
    "another key": lambda: _token(OTHER_EC_KEY),
    "expired": lambda: _token(exp=int(time.time()) - 60),
    "no expiry": lambda: _token(exp=None),
    "not yet valid": lambda: _token(nbf=int(time.time()) + 600),
    "issued in the future": lambda: _token(iat=int(time.time()) + 600),
    "no audience": lambda: _token(aud=None),
    "another audience": lambda: _token(aud="anon"),
    "no issuer": lambda: _token(iss=None),
    "another issuer": lambda: _token(iss="https://evil.example/auth/v1"),
    "issuer with a slash": lambda: _token(iss=ISSUER + "/"),
    "no subject": lambda: _token(sub=None),
    "subject that is no id": lambda: _token(sub="alice"),
    "the service's role": lambda: _token(role="service_role"),
    "no role": lambda: _token(role=None),
    "anonymous sign-in": lambda: _token(is_anonymous=True),
    "no key id": lambda: _token(kid=None),
    "unknown key id": lambda: _token(kid="nobody"),
    "key id of another algorithm": lambda: _token(RSA_KEY, "RS256", "ec"),
    "RS256 key named, ES256 used": lambda: _token(EC_KEY, "ES256", "rsa"),
    "HS256 signed with the public key": lambda: _hmac_by_hand({"alg": "HS256", "kid": "ec"}, _public_pem()),
    "HS256 with an empty secret": lambda: _hmac_by_hand({"alg": "HS256"}, b""),
    "HS512 with the old secret": lambda: _token(SECRET * 2, "HS512", None),
    "key in the header": lambda: jwt.encode(
        _claims(), OTHER_EC_KEY, "ES256", headers={"kid": "nobody", "jwk": _record(OTHER_EC_KEY, "nobody")}
    ),
    "key at a url in the header": lambda: jwt.encode(
        _claims(), OTHER_EC_KEY, "ES256", headers={"kid": "ec", "jku": "https://evil.example/jwks.json"}
    ),
    "too long": lambda: _token(padding="x" * 9000),
    "not ascii": lambda: "é.é.é",
}


@pytest.mark.parametrize("secret", [None, SECRET], ids=["keys", "keys and old secret"])
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(name: str, secret: str | None) -> None:
    token = FORGED[name]()
    with pytest.raises(Refusal) as caught:
        _verifier(secret).verify(token)
    refusal = caught.value
    assert refusal.status == 401
    assert refusal.headers["WWW-Authenticate"].startswith("Bearer")
    assert len(token) < 4 or token not in refusal.detail + refusal.headers["WWW-Authenticate"]


def test_a_little_clock_skew_is_forgiven() -> None:
    assert _verifier().verify(_token(exp=int(time.time()) - 5)).user_id == ALICE


def test_a_symmetric_or_foreign_key_in_the_set_is_no_key() -> None:
    octets = {"kty": "oct", "k": _part("x"), "kid": "oct", "alg": "HS256"}
    curve = _record(ec.generate_private_key(ec.SECP384R1()), "p384")
    keys = KeySet(
        "https://x.example/jwks.json", Source({"keys": [octets, curve, _record(EC_KEY, "ec", alg="HS256")]})
    )
    assert [keys.find(kid) for kid in ("oct", "p384", "ec")] == [None, None, None]


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _keys(source: Source) -> tuple[KeySet, Time]:
    clock = Time()
    return KeySet("https://x.example/jwks.json", source, now=clock), clock


def test_keys_are_fetched_once_and_again_after_ten_minutes() -> None:
    source = Source()
    keys, clock = _keys(source)
    for _ in range(5):
        assert keys.find("ec") is not None
    assert source.asked == 1
    clock.now += KEYS_LIVE_SECONDS + 1
    keys.find("ec")
    assert source.asked == 2


def test_an_unknown_key_is_asked_for_at_most_every_thirty_seconds() -> None:
    source = Source({"keys": []})
    keys, clock = _keys(source)
    assert keys.find("ec") is None
    for _ in range(100):
        keys.find("made-up")
    assert source.asked == 1
    source.document = KEYS  # the project rotated its keys
    clock.now += REFRESH_PAUSE_SECONDS + 1
    assert keys.find("ec") is not None
    assert source.asked == 2


def test_known_keys_stay_good_while_the_auth_server_is_away() -> None:
    source = Source()
    keys, clock = _keys(source)
    keys.find("ec")
    source.fails = True
    clock.now += KEYS_LIVE_SECONDS + 1
    assert keys.find("ec") is not None


@pytest.mark.parametrize(
    "document", ["text", {"keys": "x"}, {"keys": [{"kty": "EC", "crv": "P-256", "kid": "a"}]}, 7]
)
def test_no_keys_at_all_is_unavailable_not_a_refusal(document: Any) -> None:
    with pytest.raises(Unavailable):
        _verifier(source=Source(document)).verify(_token())


def test_the_bearer_token_is_taken_from_its_header() -> None:
    assert bearer("Bearer abc") == "abc"
    assert bearer("bearer abc") == "abc"
    for wrong in ("", "abc", "Basic abc", "Bearer ", "Bearer"):
        with pytest.raises(Refusal) as caught:
            bearer(wrong)
        assert caught.value.status == 401


def test_the_dispatch_secret_is_compared_whole() -> None:
    check_secret("a" * 32, "a" * 32)
    for wrong in ("", "a" * 31, "a" * 33, "é" * 32, "\ud800"):
        with pytest.raises(AppError) as caught:
            check_secret(wrong, "a" * 32)
        assert caught.value.status == 401


def test_a_subject_is_a_uuid() -> None:
    assert isinstance(_verifier().verify(_token()).user_id, UUID)
