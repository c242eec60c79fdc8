"""The ports of a local network, and who to ask when one is taken."""

import contextlib
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from clusterai.cli.failure import Exit, Failure

HOST = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104  what `up --host` asks for
REACHED_S = 3.0


class Ports(msgspec.Struct, frozen=True):
    """`api` is for people and their programs; nodes dial `link`; everyone reads the chain at `chain`; each validator tells
    how it is at its own of `validators`.

    Attributes:
        host: what others call this machine; by default nobody else can.
        tls: whether the API is HTTPS.
    """

    api: int
    link: int
    chain: int
    validators: tuple[int, ...]
    host: str = HOST
    tls: bool = False

    @property
    def is_open(self) -> bool:
        """Whether other machines reach it."""
        return self.host != HOST

    @property
    def again(self) -> str:
        """The command that lets others in again; without --host, who joined from elsewhere would be left alone."""
        tls = " --tls-certificate FILE --tls-key FILE" if self.tls else ""
        return f"up --host {self.host} --port {self.api}{tls}" if self.is_open else "up"

    @property
    def listens(self) -> str:
        """What API, links and chain listen on: an address that others use may be a NAT's, and none of this machine's own."""
        return EVERYWHERE if self.is_open else HOST

    @property
    def api_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.api}"

    @property
    def link_url(self) -> str:
        return f"wss://{self.host}:{self.link}"

    @property
    def chain_url(self) -> str:
        return f"http://{self.host}:{self.chain}"

    @classmethod
    def beside(cls, api: int, validators: int = 1, host: str = HOST, tls: bool = False) -> "Ports":
        return cls(api, api + 1, api + 2, tuple(range(api + 3, api + 3 + validators)), host, tls)

    @classmethod
    def of(cls, api_url: str) -> "Ports":
        """Of a network whose API is there."""
        url = urlsplit(api_url)
        assert url.hostname is not None
        assert url.port is not None
        return cls.beside(url.port, host=url.hostname, tls=url.scheme == "https")

    def uses(self) -> list[tuple[int, str]]:
        """Each port, and what for."""
        named = [(self.api, "the API"), (self.link, "nodes"), (self.chain, "the chain")]
        return [*named, *((port, "a validator") for port in self.validators)]


def check(ports: Ports, data: str) -> None:
    """
    Raises:
        Failure: one of them is in use, or this machine doesn't reach itself where others are to reach it.
    """
    for port, use in ports.uses():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ports.listens, port))
            except OSError as error:
                raise Failure(
                    f"port {port} (for {use}) can't be used",
                    error.strerror or str(error),
                    f"clusterai up --data {data} --port {_free(ports.api, len(ports.uses()))}",
                    Exit.BUSY,
                ) from None
            if ports.is_open and port == ports.api:
                _reached(probe, ports)


def _reached(probe: socket.socket, ports: Ports) -> None:
    """Its own processes and commands call it as others do. A name that means loopback here would be told to others as that."""
    probe.listen(1)
    try:
        if ip_address(socket.gethostbyname(ports.host)).is_loopback:
            raise OSError(f"here {ports.host} is loopback: /etc/hosts may say so")
        with contextlib.closing(socket.create_connection((ports.host, ports.api), REACHED_S)):
            pass
    except OSError as error:
        raise Failure(
            f"other machines don't reach this one at {ports.host}:{ports.api}; it doesn't itself",
            error.strerror or str(error) or type(error).__name__,
            f"give --host an IPv4 address of this machine, or a name of one; a firewall must let TCP {ports.api} to {ports.chain} in",
            Exit.USAGE,
        ) from None


def _free(above: int, many: int) -> int:
    """A port above which the others are free as well."""
    for first in range(above + 10, 65_000, 10):
        if all(_is_free(first + more) for more in range(many)):
            return first
    return above


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex((HOST, port)) != 0
