"""The one spelling of an address (E.164 phone, lower-case e-mail, https endpoint), or why it is none."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from shared.values import AddressKind

LONGEST_EMAIL = 254  # RFC 5321, 4.5.3.1
LONGEST_LOCAL_PART = 64
LONGEST_ENDPOINT = 2000
_PORTS = (None, 443, 8443)

# ITU-T E.164 codes of no country: satellites (870, 881 to 883), personal (878), relief (888), premium (979)
_COSTLY_CODES = frozenset({870, 878, 881, 882, 883, 888, 979})
_PHONE_SHAPE = re.compile(r"[+0-9().\-/\s\u2010-\u2015\u00a0\u202f]{5,40}")


class AddressError(ValueError):
    """Not an address that we may use. The message is fit for an import report and never repeats the value."""


def normalise(
    kind: AddressKind, text: str, *, country: str | None = None, local_sink: str | None = None
) -> str:
    """The one spelling of an address of this kind. Raises AddressError."""
    if kind is AddressKind.PHONE:
        return phone(text, country)
    return email(text) if kind is AddressKind.EMAIL else endpoint(text, local_sink=local_sink)


def phone(text: str, country: str | None = None) -> str:
    """A phone in E.164 form, e.g. "+33612345678". `country` (ISO 3166, e.g. "FR") reads national spellings.

    Refuses what is no number, and numbers that cost or earn someone money: premium rate, shared cost,
    satellite.
    """
    import phonenumbers as library

    if _PHONE_SHAPE.fullmatch(text) is None:
        raise AddressError("must be a phone number of digits, spaces and + ( ) . -")
    try:
        number = library.parse(text, country)
    except library.NumberParseException:
        raise AddressError(
            "must be a phone number with its country code, such as +33 6 12 34 56 78"
        ) from None
    if number.country_code in _COSTLY_CODES:
        raise AddressError("is a satellite, personal or premium number, which is not called")
    if not library.is_valid_number(number):
        raise AddressError("is not a number that exists in its country's numbering plan")
    kinds = library.PhoneNumberType
    if library.number_type(number) in (kinds.PREMIUM_RATE, kinds.SHARED_COST, kinds.PAGER, kinds.VOICEMAIL):
        raise AddressError("is a premium or service number, which is not called")
    return str(library.format_number(number, library.PhoneNumberFormat.E164))


def email(text: str) -> str:
    """An e-mail address in lower case, its domain in ASCII. Syntax only: nothing is looked up.

    RFC 5321 lets a host tell "Bob" from "bob", but none that matters does, and two spellings must be one
    destination.
    """
    from email_validator import EmailNotValidError, validate_email

    try:
        checked = validate_email(text.strip(), check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        raise AddressError("must be an e-mail address, such as name@example.com") from None
    address = checked.ascii_email
    if address is None or len(address) > LONGEST_EMAIL or address.index("@") > LONGEST_LOCAL_PART:
        raise AddressError("must be an e-mail address of at most 254 characters, 64 before the @")
    return address.lower()


def endpoint(text: str, *, local_sink: str | None = None) -> str:
    """An https URL that webhooks may be sent to. `local_sink` is the one http origin that a local stack
    allows.
    """
    text = text.strip()
    if len(text) > LONGEST_ENDPOINT or not text.isascii() or re.search(r"[\x00-\x20\x7f\\<>\"]", text):
        raise AddressError("must be an https URL of at most 2,000 ASCII characters without spaces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise AddressError("must be an https URL") from None
    if local_sink is not None and f"{parts.scheme}://{parts.netloc}" == local_sink:
        return text
    if parts.scheme != "https" or not parts.hostname or port not in _PORTS:
        raise AddressError("must be an https URL with port 443 or 8443")
    if "@" in parts.netloc or parts.fragment:
        raise AddressError("must be an https URL without user, password or fragment")
    host = parts.hostname.rstrip(".") + (f":{port}" if port == 8443 else "")
    return parts._replace(netloc=host).geturl()
