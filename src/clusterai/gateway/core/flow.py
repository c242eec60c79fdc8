"""How many bytes calls may hold and move: of one account, and of all together. What isn't paid must be bounded all the more."""

from collections import OrderedDict

import msgspec

from clusterai.protocol.ids import Digest

MOST_ACCOUNTS = 10_000


class FlowLimits(msgspec.Struct, frozen=True):
    """
    Attributes:
        most_bytes: held for all calls at once, in and out.
        account_bytes: of that, one account's.
        account_calls: one account's at once.
        bytes_a_minute: one account's, in and out; one call may exceed it, and then the next ones wait.
    """

    most_bytes: int
    account_bytes: int
    account_calls: int
    bytes_a_minute: int


class Full(Exception):
    """{why}: try again in {wait_s:.0f} s."""

    def __init__(self, why: str, wait_s: float) -> None:
        super().__init__(f"{why}: try again in {max(1.0, wait_s):.0f} s")
        self.wait_s = max(1.0, wait_s)


class _Account(msgspec.Struct):
    calls: int = 0
    held_bytes: int = 0
    moved_bytes: float = 0.0
    """in the last minute or so: it runs down evenly"""
    at_s: float = 0.0


class Flow:
    """All calls of one gateway. Times are the clock's seconds."""

    def __init__(self, limits: FlowLimits) -> None:
        self._limits = limits
        self._accounts: OrderedDict[Digest, _Account] = OrderedDict()
        self.held_bytes = 0

    def begin(self, account: Digest, now_s: float) -> "Held":
        """
        Raises:
            Full: too many calls of this account run, or it moved too much lately.
        """
        limits, found = self._limits, self._accounts.setdefault(account, _Account())
        self._accounts.move_to_end(account)
        self._forget()
        found.moved_bytes = max(0.0, found.moved_bytes - (now_s - found.at_s) * limits.bytes_a_minute / 60)
        found.at_s = now_s
        if found.calls >= limits.account_calls:
            raise Full(f"this account has {found.calls} calls running, as many as it may", 1.0)
        if found.moved_bytes >= limits.bytes_a_minute:
            over = found.moved_bytes - limits.bytes_a_minute
            raise Full(
                f"this account's calls moved {limits.bytes_a_minute} bytes in a minute, as many as they may",
                1 + over * 60 / limits.bytes_a_minute,
            )
        found.calls += 1
        return Held(self, found, limits)

    def _forget(self) -> None:
        if len(self._accounts) > MOST_ACCOUNTS:
            oldest = next((name for name, it in self._accounts.items() if not it.calls), None)
            if oldest is not None:
                del self._accounts[oldest]


class Held:
    """What one call holds until `end`."""

    def __init__(self, flow: Flow, account: _Account, limits: FlowLimits) -> None:
        self._flow = flow
        self._account = account
        self._limits = limits
        self._bytes = 0
        self._ended = False

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            Full: nothing more is held.
        """
        if self._ended:
            raise Full("this call is over", 0.0)
        if self._account.held_bytes + size > self._limits.account_bytes:
            raise Full(
                f"this account's calls hold {self._limits.account_bytes} bytes, as many as they may", 2.0
            )
        if self._flow.held_bytes + size > self._limits.most_bytes:
            raise Full("this gateway carries as many calls as it can hold", 2.0)
        self._account.held_bytes += size
        self._account.moved_bytes += size
        self._flow.held_bytes += size
        self._bytes += size

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._account.calls -= 1
            self._account.held_bytes -= self._bytes
            self._flow.held_bytes -= self._bytes
