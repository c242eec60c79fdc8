"""The ports of a local network, and who to ask when one is taken."""

import socket

import msgspec

from clusterai.cli.failure import Exit, Failure

HOST = "127.0.0.1"


class Ports(msgspec.Struct, frozen=True):
    """`api` is for people and their programs; nodes dial `link`; everyone reads the chain at `chain`; each validator tells
    how it is at its own of `validators`."""

    api: int
    link: int
    chain: int
    validators: tuple[int, ...]

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.api}"

    @property
    def chain_url(self) -> str:
        return f"http://{HOST}:{self.chain}"

    @classmethod
    def beside(cls, api: int, validators: int = 1) -> "Ports":
        return cls(api, api + 1, api + 2, tuple(range(api + 3, api + 3 + validators)))

    def uses(self) -> list[tuple[int, str]]:
        """Each port, and what for."""
        named = [(self.api, "the API"), (self.link, "nodes"), (self.chain, "the chain")]
        return [*named, *((port, "a validator") for port in self.validators)]


def check(ports: Ports, data: str) -> None:
    """
    Raises:
        Failure: one of them is in use.
    """
    for port, use in ports.uses():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise Failure(
                    f"port {port} (for {use}) can't be used",
                    error.strerror or str(error),
                    f"clusterai up --data {data} --port {_free(ports.api, len(ports.uses()))}",
                    Exit.BUSY,
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
