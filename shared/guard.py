"""Which addresses a customer's webhook may point at: the public internet over https, nothing else.

`vet_url` is asked at registration and before every call; `is_public` is asked by `outbound` for the address
that a connection really goes to, after the name was resolved, so a name that changes its mind (rebinding)
gains nothing. Python's own `is_global` is no guard: it passes multicast, NAT64 and 6to4 (design: trust.md,
bad case 9).

Sources: https://www.iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry,
https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

PORTS = frozenset({443, 8443})
LONGEST_URL = 2048

_REFUSED_4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata is 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host service: a public address that is not
        "169.254.0.0/16",  # link-local and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relay
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only 2000::/3 is global unicast: loopback, mapped and compatible addresses, NAT64 (64:ff9b::), discard,
# unique local (AWS metadata is fd00:ec2::254), link-local and multicast are outside it already.
_UNICAST_6 = IPv6Network("2000::/3")
_REFUSED_6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, given back
        "3fff::/20",  # documentation
    )
)
_NAME = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::([0-9]{1,5}))?", re.IGNORECASE)
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".arpa", ".onion", ".test")


class UnsafeUrl(ValueError):
    """A URL that we will not call. `code` is stable and names the reason; nothing in it repeats the URL."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def is_public(address: str) -> bool:
    """Whether an IP address (text, as getaddrinfo gives it) is global unicast and not a special block."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in block for block in _REFUSED_4)
    if parsed.scope_id is not None or parsed not in _UNICAST_6:
        return False
    return not any(parsed in block for block in _REFUSED_6)


def vet_url(url: str, local_sink: str | None = None) -> str:
    """The URL, unchanged, if a webhook may go there. Raises UnsafeUrl.

    `local_sink` is the one http origin (scheme, host and port, no slash) that a local stack lets through.
    """
    if not 8 <= len(url) <= LONGEST_URL:
        raise UnsafeUrl("url_length")
    if not url.isascii() or not url.isprintable() or any(character in url for character in ' \\"<>^`{|}'):
        raise UnsafeUrl("url_characters")
    if is_local_sink(url, local_sink):
        return url
    if not url.lower().startswith("https://"):
        raise UnsafeUrl("url_not_https")
    try:
        location = urlsplit(url).netloc
    except ValueError:
        raise UnsafeUrl("url_malformed") from None
    if "@" in location:
        raise UnsafeUrl("url_credentials")
    _vet_location(location)
    return url


def is_local_sink(url: str, local_sink: str | None) -> bool:
    """Whether a URL lies under the exact origin that a local stack lets through."""
    return local_sink is not None and url.startswith(f"{local_sink}/")


def _vet_location(location: str) -> None:
    match = _HOST.fullmatch(location)
    if match is None:
        raise UnsafeUrl("url_host")
    if int(match[3] or 443) not in PORTS:
        raise UnsafeUrl("url_port")
    if match[1] is not None:
        _vet_address(match[1])
        return
    name = match[2].lower().removesuffix(".")
    if name.replace(".", "").isdigit():
        _vet_address(name)
    elif _NAME.fullmatch(name) is None:  # single labels, and a number's many spellings: 0x7f.1, 0177.1
        raise UnsafeUrl("url_host")
    elif f".{name}".endswith(_LOCAL_NAMES):
        raise UnsafeUrl("url_private")


def _vet_address(text: str) -> None:
    try:
        address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        raise UnsafeUrl("url_host") from None
    if not is_public(str(address)):
        raise UnsafeUrl("url_private")
