"""What this validator wants of the chain: each call submitted once in a life, and again where the chain said "not yet"."""

from clusterai.ledger.core.calls import Call, Submit
from clusterai.protocol.ids import Address

MOST_REMEMBERED = 10_000
AGAIN = frozenset({"AnswerPending", "BeaconPending", "AlreadyChallenged"})
"""Reverts that say "not yet": the same call may succeed in a later block."""
DONE = frozenset({"AlreadyConvicted", "AlreadyVoted", "AlreadyCleared", "AlreadySlashed", "NotChallenged"})
"""Reverts that say "no need": another was first, or we were, before a restart."""


class Intents:
    """Keys of what was submitted; forgotten when blocks are undone, for then it may have to be said again."""

    def __init__(self) -> None:
        self._submitted: dict[str, None] = {}

    def submit(self, key: str, call: Call) -> list[Submit]:
        """A restarted validator submits again, and the chain refuses what it has."""
        if key in self._submitted:
            return []
        if len(self._submitted) >= MOST_REMEMBERED:
            self._submitted.pop(next(iter(self._submitted)))
        self._submitted[key] = None
        return [Submit(key, call)]

    def __contains__(self, key: str) -> bool:
        return key in self._submitted

    def refused(self, key: str, reason: str) -> bool:
        """Whether the refusal is one that a person should hear of."""
        if reason in AGAIN:
            self._submitted.pop(key, None)
        return reason not in DONE

    def forget(self) -> None:
        self._submitted.clear()


def name(provider: Address, epoch: int, index: int) -> str:
    return f"{provider.hex()}:{epoch}:{index}"
