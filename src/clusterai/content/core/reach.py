"""Which addresses may be dialled for a stranger: a listing names its holders, and whoever fetches connects to them.

Without this rule a listing could have its readers ask their own router, their cloud's metadata service or the gateway's
database (server-side request forgery). A name is judged by the addresses that it resolves to, and the connection goes to
those same addresses, so that a name can't resolve to one thing when judged and to another when dialled. Redirects
are never followed. What a person types is that person's own affair: `private` lets it through.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

MOST_URL = 500
MOST_HOLDERS = 16
_WEB = ("http", "https")
_TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
"""NAT64: addresses that stand for those of IPv4, private ones too."""


class Unreachable(ValueError):
    """{url} isn't dialled: {why}."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url[:120]!r} isn't dialled: {why}")


def is_public(address: str) -> bool:
    """Whether anyone on the internet has this address."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None or any(ip in net for net in _TRANSLATED):
            return False
    return _is_global(ip)


def _is_global(ip: IPv4Address | IPv6Address) -> bool:
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)


def base(url: str, *, private: bool = False) -> str:
    """A holder's URL as it may stand in a listing, without a last `/`.

    Args:
        private: addresses of one's own network may be dialled too.

    Raises:
        Unreachable: another scheme than http and https, a password, a query, a port of some other service, a private address.
    """
    if (
        not 0 < len(url) <= MOST_URL
        or not url.isascii()
        or not url.isprintable()
        or " " in url
        or "\\" in url
    ):
        raise Unreachable(url, f"a URL has up to {MOST_URL} plain characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Unreachable(url, str(error)) from None
    if parts.scheme not in _WEB:
        raise Unreachable(url, "strangers' holders are http:// or https://")
    if not host:
        raise Unreachable(url, "it names no host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise Unreachable(url, "a password, a query or a fragment has no business in it")
    if ".." in parts.path.split("/"):
        raise Unreachable(url, "its path climbs")
    if private:
        return url.rstrip("/")
    if port is not None and port < 1024 and port not in (80, 443):
        raise Unreachable(url, "below 1024 only ports 80 and 443 are dialled")
    if is_literal(host) and not is_public(host):
        raise Unreachable(url, "it is an address of a private network")
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        raise Unreachable(url, "it is a name of a private network")
    return url.rstrip("/")


def listed(urls: Sequence[str]) -> tuple[str, ...]:
    """The holders of a listing that may be dialled, each once; others are left out, as are those past the limit."""
    found: dict[str, None] = {}
    for url in urls[:MOST_HOLDERS]:
        try:
            found[base(url)] = None
        except Unreachable:
            continue
    return tuple(found)


def is_literal(host: str) -> bool:
    """Whether a client may dial it without asking what it resolves to; `2130706433` is one to inet_aton."""
    return ":" in host or host.replace(".", "").isdigit()
