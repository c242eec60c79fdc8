"""What a provider has shown, from facts that it can't make up itself, with each line of the sum to read.

    weight = stake x quality,     quality = experience x record x availability x promptness,   each in 0 ... 1

    experience    work that an audit found right, in stakes: as much as the stake says all that there is to say
    record        of what it undertook, the share that it didn't break (leases missed, given up or answered wrongly)
    availability  of the time in which this gateway looked, the share in which it was there
    promptness    how its first token compares with the usual one, as others measured it

Facts fade: a month halves them. Nothing that a provider says of itself counts, and nobody's praise: epochs that were
cleared with something drawn, leases as the chain closed them, and what the observer saw with its own clock.

**Stake makes identities worth no more than one.** Weight is linear in stake and experience is capped by it, so a
provider that splits its stake and its work over many names weighs no more in sum, and names without stake weigh nothing.
It may isolate its faults in one of them; it then loses that one's stake from the count.

It ranks and routes. It never lowers an audit rate below p*, and no conviction is forgiven by it: who is convicted is out.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from clusterai.ledger.core import events
from clusterai.protocol.ids import Address
from clusterai.protocol.leases import CloseReason

HALF_LIFE_S = 30 * 86_400.0
BEGINNER = 0.5
"""Experience of a provider with nothing to show: newcomers must be tried, at half of a veteran's weight."""
PRIOR_S = 3_600.0
"""An hour of good behaviour is believed beforehand, so that a first missed minute doesn't condemn."""
BROKEN_WEIGHS = 3.0
"""A broken promise costs its requester more than its price: it counts threefold."""

_BROKEN = frozenset(
    (CloseReason.DEADLINE_MISSED, CloseReason.GAVE_UP, CloseReason.OUTPUT_DIFFERS, CloseReason.NOT_ACCEPTED)
)
_KEPT = frozenset((CloseReason.COMPLETED,))


class Fading(msgspec.Struct):
    """A sum whose parts lose half of their weight in `HALF_LIFE_S`."""

    value: float = 0.0
    at_s: float = 0.0

    def read(self, now_s: float) -> float:
        return self.value * 2.0 ** (-max(0.0, now_s - self.at_s) / HALF_LIFE_S)

    def add(self, amount: float, now_s: float) -> None:
        self.value = self.read(now_s) + amount
        self.at_s = max(self.at_s, now_s)


class Facts(msgspec.Struct):
    """What is known of one provider. Money in the token's smallest unit, times in seconds."""

    verified: Fading = msgspec.field(default_factory=Fading)
    kept: Fading = msgspec.field(default_factory=Fading)
    broken: Fading = msgspec.field(default_factory=Fading)
    up: Fading = msgspec.field(default_factory=Fading)
    down: Fading = msgspec.field(default_factory=Fading)
    first_token_s: float | None = None
    convicted: bool = False
    pending: dict[int, int] = msgspec.field(default_factory=dict)
    """epoch -> total of a commitment that no clearance followed yet"""


class Line(msgspec.Struct, frozen=True):
    """One factor: its value in 0 ... 1, what it was found from, where that comes from, and what would raise it."""

    name: str
    value: float
    found: str
    source: str
    cure: str = ""


class Reputation:
    """A projection of chain events and of one observer's own measurements; losing it costs patience, not money."""

    def __init__(self, confirmations: int = 0) -> None:
        """
        Args:
            confirmations: blocks that must stand above an event before `hear` believes it.
        """
        self._confirmations = confirmations
        self._batch: list[object] = []
        self._blocks: deque[tuple[events.Block, list[object]]] = deque()
        self._facts: dict[Address, Facts] = {}
        self._leases: dict[bytes, tuple[Address, int]] = {}
        self._usual_first_token_s: float | None = None

    # --- facts ---

    def hear(self, event: object) -> None:
        """Take chain events as they come, blocks that are undone included; what is deep enough counts."""
        match event:
            case events.Block(number):
                self._blocks.append((event, self._batch))
                self._batch = []
                while self._blocks and self._blocks[0][0].number + self._confirmations <= number:
                    block, happened = self._blocks.popleft()
                    for one in happened:
                        self.apply(one, block.timestamp_s)
            case events.RolledBack(number):
                self._batch = []
                while self._blocks and self._blocks[-1][0].number > number:
                    self._blocks.pop()
            case _:
                self._batch.append(event)

    def apply(self, event: object, now_s: float) -> None:
        """Take one chain event; those that say nothing of a provider's work are passed over."""
        match event:
            case events.EpochCommitted(provider, epoch, _, _, total):
                pending = self._of(provider).pending
                pending[epoch] = total
                while len(pending) > 1_000:
                    del pending[next(iter(pending))]
            case events.EpochCleared(provider, epoch, _, audited):
                facts = self._of(provider)
                total = facts.pending.pop(epoch, 0)
                # An epoch of which nothing was drawn was believed, not verified.
                if audited:
                    facts.verified.add(total, now_s)
            case events.LeaseOpened(lease, _, provider, terms):
                self._leases[lease] = (provider, terms.compensation_wei)
            case events.LeaseClosed(lease, reason, paid):
                self._closed(lease, reason, paid, now_s)
            case events.AuditMatched(lease):
                provider, worth = self._leases.get(lease, (None, 0))
                if provider is not None:
                    self._of(provider).verified.add(worth, now_s)
            case events.Slashed(owner):
                self._of(owner).convicted = True
            case _:
                pass

    def _closed(self, lease: bytes, reason: int, paid: int, now_s: float) -> None:
        provider, worth = self._leases.pop(lease, (None, 0))
        if provider is None:
            return
        if reason in _KEPT:
            self._of(provider).kept.add(paid, now_s)
        elif reason in _BROKEN:
            self._of(provider).broken.add(worth, now_s)

    def seen(self, provider: Address, up: bool, for_s: float, now_s: float) -> None:
        """The observer looked for `for_s` seconds, and it was there or not."""
        facts = self._of(provider)
        (facts.up if up else facts.down).add(max(0.0, for_s), now_s)

    def timed(self, provider: Address, first_token_s: float) -> None:
        """Somebody other than the provider measured how long its first token took."""
        facts = self._of(provider)
        before = first_token_s if facts.first_token_s is None else facts.first_token_s
        facts.first_token_s = before + 0.2 * (first_token_s - before)
        usual = first_token_s if self._usual_first_token_s is None else self._usual_first_token_s
        self._usual_first_token_s = usual + 0.02 * (first_token_s - usual)

    # --- answers ---

    def quality(self, provider: Address, stake_wei: int, now_s: float) -> float:
        """0 for the convicted, up to 1; a newcomer that was never seen has `BEGINNER`."""
        value = 1.0
        for line in self.explain(provider, stake_wei, now_s):
            value *= line.value
        return value

    def weight(self, provider: Address, stake_wei: int, now_s: float) -> float:
        """What it counts for beside others, in the token's smallest unit."""
        return stake_wei * self.quality(provider, stake_wei, now_s)

    def explain(self, provider: Address, stake_wei: int, now_s: float) -> tuple[Line, ...]:
        """The factors whose product the quality is, each with what it rests on and what would raise it."""
        facts = self._facts.get(provider) or Facts()
        if facts.convicted:
            return (
                Line(
                    "standing",
                    0.0,
                    "it was convicted and slashed",
                    "settled",
                    "take part from another owner key",
                ),
            )
        return (
            _experience(facts, stake_wei, now_s),
            _record(facts, stake_wei, now_s),
            _availability(facts, now_s),
            self._promptness(facts),
        )

    def _promptness(self, facts: Facts) -> Line:
        took, usual = facts.first_token_s, self._usual_first_token_s
        if took is None or usual is None or took <= usual:
            found = (
                "not measured yet" if took is None else f"{took * 1000:.0f} ms, as quick as others or quicker"
            )
            return Line("promptness", 1.0, found, "measured")
        return Line(
            "promptness",
            max(0.5, usual / took),
            f"{took * 1000:.0f} ms to the first token, where others take {usual * 1000:.0f} ms",
            "measured",
            "serve fewer streams at once, or from a faster machine",
        )

    def _of(self, provider: Address) -> Facts:
        return self._facts.setdefault(provider, Facts())


def total_weight(reputation: Reputation, stakes: Iterable[tuple[Address, int]], now_s: float) -> float:
    """What several identities weigh together."""
    return sum(reputation.weight(provider, stake, now_s) for provider, stake in stakes)


def _experience(facts: Facts, stake_wei: int, now_s: float) -> Line:
    verified = facts.verified.read(now_s)
    share = min(1.0, verified / stake_wei) if stake_wei > 0 else 0.0
    return Line(
        "experience",
        BEGINNER + (1 - BEGINNER) * share,
        f"work worth {share:.0%} of its stake was audited and found right, counting older work for less",
        "settled",
        "" if share >= 1 else "more audited work raises it; a smaller stake would too, and weigh less",
    )


def _record(facts: Facts, stake_wei: int, now_s: float) -> Line:
    kept, broken = facts.kept.read(now_s), BROKEN_WEIGHS * facts.broken.read(now_s)
    # The stake stands for what it would have done right, so that one small miss of a newcomer stays small.
    share = (kept + stake_wei) / (kept + stake_wei + broken) if broken else 1.0
    return Line(
        "record",
        share,
        "every lease was kept"
        if not broken
        else f"{1 - share:.1%} of what it undertook was broken, threefold",
        "settled",
        "" if not broken else "leases that are kept and time: a month halves what was broken",
    )


def _availability(facts: Facts, now_s: float) -> Line:
    up, down = facts.up.read(now_s) + PRIOR_S, facts.down.read(now_s)
    share = up / (up + down)
    return Line(
        "availability",
        share,
        f"there for {share:.2%} of the time in which this gateway looked",
        "measured",
        "" if share > 0.999 else "stay connected; `clusterai node doctor` finds what cuts the connection",
    )
