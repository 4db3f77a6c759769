"""The table of addresses and URLs that a webhook may not point at, and of those that it may."""

from __future__ import annotations

import pytest

from shared.guard import UnsafeUrl, is_public, vet_url

REFUSED_ADDRESSES = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1",
    "127.255.0.1",
    "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
    "100::1",
    "2001::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2620:4f:8000::1",
    "3ffe::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1", "5f00::1",
]  # fmt: skip
REFUSED_URLS = [
    "http://example.com/", "https://example.com:80/", "https://example.com:22/", "https://example.com:65536/",
    "https://example.com:0443x/", "https://user@example.com/", "https://user:word@example.com/",
    "https://example.com@127.0.0.1/", "https://127.0.0.1/", "https://127.0.0.1:8443/", "https://[::1]/",
    "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/", "https://[::1", "https://[]/",
    "https://169.254.169.254/",
    "https://127.1/", "https://127.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/",
    "https://0177.0.0.1/", "https://017700000001/", "https://127.0.0.1./", "https://localhost/",
    "https://LOCALHOST/",
    "https://a.localhost/", "https://printer.local/", "https://metadata.google.internal/",
    "https://router.home.arpa/",
    "https://intranet/", "https://example.com\\@127.0.0.1/", "https://example.com /",
    "https://exa\tmple.com/",
    "https://example.com/\r\nX: y", "https://ｌocalhost/", "https://１２７.0.0.1/", "https://exämple.com/",
    "https://",
    "https:///path", "https://.example.com/", "https://example..com/", "https://-a.example.com/",
    "https://a_b.example.com/",
    "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)",
    "//example.com/", "",
    "https://example.com/" + "a" * 2048, "https://%31%32%37.0.0.1/", "https://example.com%00.evil.com/",
    "https://example.com:443:443/", "https://1.1.1.1.1/", "https://256.1.1.1/", "https://[1.1.1.1]/",
    "https://example.123/", "https://xn--/", "https://[::1]:443@example.com/",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_an_address_that_is_not_on_the_public_internet_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",
     "223.255.255.255", "2606:4700::1111", "2a00:1450:4007::1", "2001:4860:4860::8888", "2400:cb00::1"],
)  # fmt: skip
def test_a_public_address_is_let_through(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "text", ["", "example.com", "1.1.1", "1.1.1.1/32", "2606:4700::1111%eth0", "1.1.1.1 "]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_an_unsafe_url_is_refused_with_a_code_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(UnsafeUrl) as raised:
        vet_url(url)
    assert raised.value.code.startswith("url_")
    assert str(raised.value) == raised.value.code


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hooks?a=1&b=%20",
        "https://EXAMPLE.com:443/",
        "https://hooks.example.com:8443/x#y",
        "https://xn--exmple-cua.com/",
        "https://example.com./",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]:8443/",
    ],
)
def test_a_safe_url_is_returned_unchanged(url: str) -> None:
    assert vet_url(url) == url


def test_the_local_sink_is_one_exact_origin() -> None:
    sink = "http://127.0.0.1:9000"
    assert vet_url(f"{sink}/a", sink) == f"{sink}/a"
    for other in (
        "http://127.0.0.1:90001/a",
        "http://127.0.0.1:9000.evil.com/",
        "http://127.0.0.1:9000",
        "http://localhost:9000/",
    ):
        with pytest.raises(UnsafeUrl):
            vet_url(other, sink)
    with pytest.raises(UnsafeUrl):
        vet_url(f"{sink}/a\r\nb", sink)
