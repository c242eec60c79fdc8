"""What a kind of work does over a vault: orders, which are paid, and calls, which aren't."""

from typing import Protocol

from clusterai.protocol.ids import Address
from clusterai.work.engine import Engine

CODES = frozenset({"busy", "too_large", "malformed", "denied", "failed"})
"""With what a service may refuse a call (`protocol.calls.CallRefused`)."""


class Declined(Exception):
    """A service answers no such call now. `detail` is read by people, and by the gateway too: nothing secret, and it ends with what to do next."""

    def __init__(self, code: str, detail: str) -> None:
        assert code in CODES, code
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Service(Protocol):
    """Made by `host(vault)` of the module that a kind names in `Kind.hosts`.

    Attributes:
        engine: does the kind's orders; its `model` is the subject. None where the kind takes no orders.
    """

    engine: Engine | None

    async def answer(self, sender: Address, body: bytes) -> bytes:
        """The answer to one call; several run at once.

        Args:
            sender: whom the requester says that it is; zeros where it doesn't say. The body's own seal proves it.

        Raises:
            Declined: no answer; the requester hears why. Anything else is told as a fault of ours, without its words.
        """
        ...
