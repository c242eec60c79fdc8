"""One committed epoch on its way to a verdict or a clearance: what is known of it, and what is still missing.

committed ── beacon ──> drawn ── opened ──> checked ── weighed ──> cleared | accused
                           └── not opened ── challenged ── deadline ──> accused (withheld)
"""

import msgspec

from clusterai.audit.core.draw import drawn
from clusterai.audit.core.recount import Commitment, Fault
from clusterai.protocol import merkle
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Transcript
from clusterai.protocol.statements import EPOCH_LIST, Receipt
from clusterai.validator.core.words import Found, Noted, NoteKind


class Challenge(msgspec.Struct):
    """An open or answered demand on chain.

    Attributes:
        round: counts demands for one index.
        parts: of the answer, with the blocks in which they came; dropped once the answer is deep enough.
    """

    by: Address
    deadline_s: int
    finish_s: int
    bond_wei: int
    block: int
    round: int = 1
    parts: dict[int, tuple[int, bytes]] = msgspec.field(default_factory=dict)
    answered: bool = False
    answered_block: int = -1

    @property
    def closes_s(self) -> int:
        """The last second in which a part of the answer counts."""
        return self.finish_s if self.parts else self.deadline_s

    def roll_back(self, number: int) -> None:
        self.parts = {part: it for part, it in self.parts.items() if it[0] <= number}
        if self.answered_block > number:
            self.answered, self.answered_block = False, -1


class Shown(msgspec.Struct, frozen=True):
    """A drawn receipt with its transcript; `path` where only an answer on chain placed it."""

    receipt: Receipt
    transcript: Transcript
    path: tuple[Digest, ...]


class Docket:
    """Mutable; the auditor alone changes it."""

    __slots__ = (
        "_tree",
        "asks",
        "beacon",
        "beacon_block",
        "block",
        "challenges",
        "checking",
        "closed_block",
        "commitment",
        "committed_at_s",
        "drawn",
        "drawn_at_s",
        "faults",
        "found",
        "next_ask_s",
        "outstanding",
        "rate_ppm",
        "receipts",
        "round",
        "shown",
        "unverifiable",
    )

    def __init__(self, commitment: Commitment, round_number: int, rate_ppm: int, block: int) -> None:
        self.commitment = commitment
        self.rate_ppm = rate_ppm
        self.round = round_number
        self.block = block
        self.committed_at_s = -1
        self.beacon: Digest | None = None
        self.beacon_block = -1
        self.drawn: tuple[int, ...] | None = None
        self.drawn_at_s = -1
        self.receipts: tuple[Receipt, ...] | None = None
        self._tree: list[list[bytes]] | None = None
        self.shown: dict[int, Shown] = {}
        self.checking: dict[int, float] = {}
        self.found: dict[int, Found] = {}
        self.faults: dict[int, Fault] = {}
        self.unverifiable: dict[int, str] = {}
        self.challenges: dict[int, Challenge] = {}
        self.closed_block = -1
        self.asks = 0
        self.next_ask_s = 0.0
        self.outstanding: dict[Address, int] = {}

    @property
    def key(self) -> tuple[Address, int]:
        return self.commitment.provider, self.commitment.epoch

    @property
    def closed(self) -> bool:
        """Cleared or convicted; what is known stays until the window's end, for a chain that changes its mind."""
        return self.closed_block >= 0

    def ends_s(self, window_s: int) -> int:
        """The last second in which a vote on it counts."""
        return self.committed_at_s + window_s

    def note(self, kind: NoteKind, index: int, detail: str, evidence: Digest | None = None) -> Noted:
        return Noted(kind, *self.key, index, detail, evidence)

    def draw(self) -> None:
        assert self.beacon is not None, "drawn once the beacon is known"
        c = self.commitment
        self.drawn = drawn(self.beacon, c.provider, c.epoch, c.root, c.count, self.rate_ppm)

    def redraw(self) -> None:
        """The beacon was reorganised away. What was shown stays: it is bound to the root, not to the draw."""
        self.beacon, self.beacon_block = None, -1
        self.drawn = None

    def challenged(
        self, by: Address, index: int, deadline_s: int, finish_s: int, bond_wei: int, block: int
    ) -> None:
        before = self.challenges.get(index)
        round_ = before.round + 1 if before else 1
        self.challenges[index] = Challenge(by, deadline_s, finish_s, bond_wei, block, round_)

    def drop_parts(self, number: int) -> None:
        """Of answers that were complete at block `number`, and so deep that they stand: up to 1.5 MB each."""
        for challenge in self.challenges.values():
            if challenge.answered and challenge.answered_block <= number:
                challenge.parts.clear()

    def missing(self) -> tuple[int, ...]:
        """Drawn receipts of which nothing is known yet."""
        known = (self.shown, self.found, self.faults, self.unverifiable)
        return tuple(index for index in self.drawn or () if not any(index in some for some in known))

    def undecided(self) -> tuple[int, ...]:
        """Drawn receipts without an outcome."""
        known = (self.found, self.faults, self.unverifiable)
        return tuple(index for index in self.drawn or () if not any(index in some for some in known))

    def withheld(self) -> tuple[int, ...]:
        """What may be demanded on chain: the list, and missing receipts."""
        return ((EPOCH_LIST,) if self.receipts is None else ()) + self.missing()

    def leaf(self, index: int) -> Digest | None:
        if self.receipts is not None:
            return self.receipts[index].struct()
        if index in self.shown:
            return self.shown[index].receipt.struct()
        return self.found[index].leaf if index in self.found else None

    def path(self, index: int) -> tuple[Digest, ...] | None:
        """The proof of `index`; None while the list isn't known and nothing else placed it."""
        if self.receipts is not None:
            if self._tree is None:
                self._tree = merkle.levels([receipt.struct() for receipt in self.receipts])
            return merkle.path(self._tree, index)
        if self.commitment.count == 1:
            return ()
        if index in self.shown and self.shown[index].path:
            return self.shown[index].path
        if index in self.found and self.found[index].path:
            return self.found[index].path
        return None
