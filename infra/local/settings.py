"""Settings of one embedded stack: its home, ports, secrets and the environment of each of its processes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import stat
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_PORT_BASE = 54320
PORT_SPAN = 20  # a stack uses ports port_base + 1 to port_base + PORT_SPAN
SECRETS = "secrets.json"
KEY_ID = "credoalert-local"
MAXIMUM_SOCKET_PATH = 107 - len("/.s.PGSQL.65535.lock")
TEN_YEARS_SECONDS = 10 * 365 * 24 * 3600


class LocalStackError(Exception):
    """The embedded stack can't do what was asked; the message says why and what to change."""


@dataclass(slots=True, frozen=True)
class Ports:
    """TCP ports on the loopback interface, each a fixed step above the base (54320: those of `supabase start`)."""

    base: int

    @property
    def gateway(self) -> int:
        return self.base + 1

    @property
    def postgres(self) -> int:
        return self.base + 2

    @property
    def postgrest(self) -> int:
        return self.base + 3

    @property
    def postgrest_admin(self) -> int:
        return self.base + 4

    @property
    def auth(self) -> int:
        return self.base + 5

    @property
    def storage(self) -> int:
        return self.base + 6

    @property
    def carriers(self) -> int:
        return self.base + 7

    def function(self, position: int) -> int:
        """The port of the function process at `position` (0 to 9) in functions.PROCESSES."""
        return self.base + 10 + position


@dataclass(slots=True, frozen=True)
class Secrets:
    """Every secret of one home, drawn at random when the home is made."""

    jwt_private_key: str
    jwt_secret: str
    publishable_key: str
    secret_key: str
    superuser_password: str
    postgres_password: str
    authenticator_password: str
    auth_password: str
    twilio_account_sid: str
    twilio_auth_token: str
    resend_api_key: str
    resend_webhook_secret: str
    link_secret: str
    webhook_signing_key: str
    dispatch_secret: str
    s3_access_key: str
    s3_secret_key: str

    @classmethod
    def draw(cls) -> Secrets:
        """New random secrets, each in the form that its real issuer gives it."""
        key = ec.generate_private_key(ec.SECP256R1())
        private_key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(
            jwt_private_key=private_key.decode("ascii"),
            jwt_secret=secrets.token_urlsafe(48),
            publishable_key=f"sb_publishable_{secrets.token_urlsafe(24)}",
            secret_key=f"sb_secret_{secrets.token_urlsafe(24)}",
            superuser_password=secrets.token_urlsafe(24),
            postgres_password=secrets.token_urlsafe(24),
            authenticator_password=secrets.token_urlsafe(24),
            auth_password=secrets.token_urlsafe(24),
            twilio_account_sid=f"AC{secrets.token_hex(16)}",
            twilio_auth_token=secrets.token_hex(16),
            resend_api_key=f"re_{secrets.token_urlsafe(24)}",
            resend_webhook_secret=f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode('ascii')}",
            link_secret=secrets.token_urlsafe(36),
            webhook_signing_key=secrets.token_urlsafe(36),
            dispatch_secret=secrets.token_urlsafe(36),
            s3_access_key=secrets.token_hex(10),
            s3_secret_key=secrets.token_urlsafe(30),
        )

    @classmethod
    def of(cls, file: Path) -> Secrets:
        """The secrets kept in `file`, drawn and written (mode 0600) when it does not exist yet."""
        if file.exists():
            kept = json.loads(file.read_text())
            return cls(**{field.name: kept[field.name] for field in fields(cls)})
        drawn = cls.draw()
        write_private(file, json.dumps(asdict(drawn), indent=1))
        return drawn


@dataclass(slots=True, frozen=True)
class Settings:
    """One stack: where it lives, its ports and its secrets."""

    home: Path
    ports: Ports
    secrets: Secrets

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def data(self) -> Path:
        return self.home / "postgres"

    @property
    def sockets(self) -> Path:
        """The directory of Postgres' socket: its data directory, or a short one where that path is too long."""
        if len(str(self.data)) <= MAXIMUM_SOCKET_PATH:
            return self.data
        return Path(tempfile.gettempdir()) / f"credoalert-{digest(self.home)}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def functions_url(self) -> str:
        return f"{self.api_url}/functions/v1"

    @property
    def carriers_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.carriers}"

    @property
    def s3_url(self) -> str:
        return f"{self.api_url}/storage/v1/s3"

    @property
    def jwt_issuer(self) -> str:
        return f"{self.api_url}/auth/v1"

    @property
    def db_url(self) -> str:
        """For tools and tests, as the role that applies migrations."""
        return self.database_url("postgres", self.secrets.postgres_password)

    def database_url(self, role: str, password: str) -> str:
        return f"postgresql://{role}:{password}@127.0.0.1:{self.ports.postgres}/postgres?sslmode=disable"

    def socket_url(self, role: str, password: str) -> str:
        """Over the Unix socket: quicker than TCP for the processes of the stack itself."""
        return f"postgresql://{role}:{password}@/postgres?host={self.sockets}&port={self.ports.postgres}"

    def role_token(self, role: str) -> str:
        """The token that the gateway puts in place of an API key, as hosted Supabase does: `anon` or `service_role`."""
        now = int(time.time())
        claims = {"iss": "supabase", "role": role, "iat": now, "exp": now + TEN_YEARS_SECONDS}
        return jwt.encode(claims, self.secrets.jwt_secret, algorithm="HS256")

    def public_keys(self) -> list[dict[str, object]]:
        """The JSON Web Keys that anybody may see (RFC 7517)."""
        private_key = serialization.load_pem_private_key(self.secrets.jwt_private_key.encode("ascii"), None)
        assert isinstance(private_key, ec.EllipticCurvePrivateKey)
        key = jwt.algorithms.ECAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        return [{**key, "kid": KEY_ID, "alg": "ES256", "use": "sig", "key_ops": ["verify"]}]

    def verification_keys(self) -> str:
        """The key set that PostgREST accepts: the public keys and the HS256 secret of older projects."""
        secret = base64.urlsafe_b64encode(self.secrets.jwt_secret.encode()).rstrip(b"=").decode("ascii")
        return json.dumps({"keys": [*self.public_keys(), {"kty": "oct", "k": secret, "alg": "HS256"}]})


def load(home: Path, port_base: int) -> Settings:
    """The settings of the stack in `home`, which is made when it does not exist yet.

    Raises LocalStackError when the directory is used for something else.
    """
    if not (home / SECRETS).exists():
        _make_home(home)
    return Settings(home, Ports(port_base), Secrets.of(home / SECRETS))


def _make_home(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()):
        raise LocalStackError(f"{home} holds other things already: choose another --home")
    # Postgres runs as another user when this one is root, and has to get to its data; secrets are in files of mode 0600
    home.chmod(0o755 if os.geteuid() == 0 else 0o700)
    (home / "logs").mkdir(mode=0o700)


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read, at once and whole."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(file)


def digest(path: Path) -> str:
    """A short name for a path, for directories that must not be long."""
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]
