"""Which holders are dialled: a stranger's listing makes nobody ask their own network."""

import pytest

from clusterai.content.core.reach import MOST_HOLDERS, Unreachable, base, is_public, listed


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org/", "s3://bucket/x", "gopher://example.org", "http://", "//example.org",
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0.0.0.0/", "http://10.0.0.1/x", "http://192.168.1.1/",
        "http://172.16.0.1/", "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/", "http://[::1]/", "http://[::]/",
        "http://[fe80::1]/", "http://[fc00::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
        "http://224.0.0.1/", "http://localhost/", "http://a.localhost/", "http://printer.local/", "http://metadata.google.internal/",
        "http://user:pw@example.org/", "http://example.org/?a=1", "http://example.org/#a", "http://example.org:22/",
        "http://example.org/a/../b", "http://example.org\\@127.0.0.1/", "http://exa mple.org/", "http://example.org/\r\nX: y",
        "http://[::1", "http://example.org:99999/", "x" * 501, "",
    ],
)  # fmt: skip
def test_no_listing_makes_us_dial_this(url: str) -> None:
    """Other schemes, private addresses in each of their spellings, ports of other services, passwords."""
    with pytest.raises(Unreachable):
        base(url)
    assert listed([url]) == ()


def test_ordinary_holders_are_dialled() -> None:
    """A name or a public address, with http or https, at a port that isn't another service's."""
    for url in (
        "https://data.example.org/sets/a",
        "http://93.184.215.14:8080",
        "https://[2606:4700::1111]/x",
    ):
        assert base(url + "/") == url
    assert base("http://127.0.0.1:21700", private=True) == "http://127.0.0.1:21700"
    with pytest.raises(Unreachable):
        base("file:///etc/passwd", private=True)


def test_a_listing_names_at_most_so_many() -> None:
    """A listing is no way to have a thousand servers asked."""
    urls = [f"https://{n}.example.org" for n in range(1000)]
    assert listed(urls) == tuple(urls[:MOST_HOLDERS])
    assert listed(["https://a.example", "https://a.example/"]) == ("https://a.example",)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses(address: str) -> None:
    """The rest of the internet."""
    assert is_public(address)
    assert not is_public("example.org")
