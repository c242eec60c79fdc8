"""What goes wrong in one run: each seed draws which kinds of fault it has and how bad each is.

Kinds are switched on and off per seed, because bugs hide from an even mixture: a queue fills only when nothing
drains it, a stale epoch needs a long outage and little else. Each kind draws from a stream of its own, so that taking
one kind away (as the shrinker does) leaves the others' rates as they were.
"""

from collections.abc import Iterable
from enum import StrEnum
from random import Random

import msgspec


class Fault(StrEnum):
    """The kinds, by what they strike."""

    LOSS = "loss"
    DUPLICATION = "duplication"
    DELAY = "delay"
    REORDERING = "reordering"
    CUT = "cut"
    PARTITION = "partition"
    ONE_WAY = "one-way"
    CRASH = "crash"
    TORN_WRITE = "torn-write"
    COMPACTION = "compaction"
    SKEW = "skew"
    CHAIN_OUTAGE = "chain-outage"
    LATE_BLOCKS = "late-blocks"
    REORGANISATION = "reorganisation"
    LOST_TRANSACTION = "lost-transaction"


class Faults(msgspec.Struct, frozen=True):
    """Rates of one run; all zero is a perfect world.

    Attributes:
        kinds: those that are on.
        latency_us: (least, most) of a packet in a healthy network; drawn too, and no fault.
        loss, duplication, delay: probability per packet.
        delay_us: how long a delayed packet may take beyond its latency.
        reordering: whether packets overtake each other on one link.
        cut_every_us, partition_every_us, one_way_every_us: mean time between, of a link or of the network; 0 is never.
        parted_us, one_way_us: the longest partition of either form.
        crash_every_us: mean time between deaths of one process; it dies between two effects of its next step.
        down_us: the longest time that a process stays dead.
        torn_write: whether a part of what was not synced may survive, record by record.
        compaction: probability per step that the journal is replaced by a snapshot.
        skew_us: the most that a process's clock is off.
        outage_every_us, outage_us: of the chain, as each process sees it.
        late_blocks: the most that a block's time is stretched, as a factor.
        reorganisation: probability per block; depth is 1 to `reorganised_blocks`.
        lost_transaction: probability per transaction that it vanishes before it is mined.
    """

    kinds: tuple[Fault, ...] = ()
    latency_us: tuple[int, int] = (1_000, 20_000)
    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.0
    delay_us: int = 0
    reordering: bool = False
    cut_every_us: int = 0
    partition_every_us: int = 0
    one_way_every_us: int = 0
    parted_us: int = 0
    one_way_us: int = 0
    crash_every_us: int = 0
    down_us: int = 0
    torn_write: bool = False
    compaction: float = 0.0
    skew_us: int = 0
    outage_every_us: int = 0
    outage_us: int = 0
    late_blocks: float = 1.0
    reorganisation: float = 0.0
    reorganised_blocks: int = 0
    lost_transaction: float = 0.0

    @classmethod
    def draw(cls, seed: int, kinds: Iterable[Fault] = tuple(Fault), share: float = 0.5) -> "Faults":
        """The faults of `seed`: each of `kinds` is on with probability `share`; the rest are off."""
        allowed = set(kinds)
        fields: dict[str, object] = {}
        on: list[Fault] = []
        for kind in Fault:
            random = Random(f"faults {seed} {kind}")
            chosen = random.random() < share
            if chosen and kind in allowed:
                on.append(kind)
                fields |= _severity(kind, random)
        random = Random(f"faults {seed} latency")
        least = _between(random, 100, 5_000)
        fields["latency_us"] = (least, least + _between(random, 100, 100_000))
        return msgspec.convert({**fields, "kinds": on}, cls)


def _severity(kind: Fault, random: Random) -> dict[str, object]:
    match kind:
        case Fault.LOSS:
            return {"loss": _rate(random, 0.001, 0.2)}
        case Fault.DUPLICATION:
            return {"duplication": _rate(random, 0.001, 0.3)}
        case Fault.DELAY:
            return {"delay": _rate(random, 0.001, 0.1), "delay_us": _between(random, 100_000, 20_000_000)}
        case Fault.REORDERING:
            return {"reordering": True}
        case Fault.CUT:
            return {"cut_every_us": _between(random, 2_000_000, 60_000_000)}
        case Fault.PARTITION:
            return {
                "partition_every_us": _between(random, 3_000_000, 60_000_000),
                "parted_us": _between(random, 100_000, 40_000_000),
            }
        case Fault.ONE_WAY:
            return {
                "one_way_every_us": _between(random, 3_000_000, 60_000_000),
                "one_way_us": _between(random, 100_000, 40_000_000),
            }
        case Fault.CRASH:
            return {
                "crash_every_us": _between(random, 3_000_000, 120_000_000),
                "down_us": _between(random, 100_000, 40_000_000),
            }
        case Fault.TORN_WRITE:
            return {"torn_write": True}
        case Fault.COMPACTION:
            return {"compaction": _rate(random, 0.001, 0.05)}
        case Fault.SKEW:
            return {"skew_us": _between(random, 10_000, 2_000_000)}
        case Fault.CHAIN_OUTAGE:
            return {
                "outage_every_us": _between(random, 10_000_000, 90_000_000),
                "outage_us": _between(random, 500_000, 60_000_000),
            }
        case Fault.LATE_BLOCKS:
            return {"late_blocks": 1 + _rate(random, 0.1, 8.0)}
        case Fault.REORGANISATION:
            return {"reorganisation": _rate(random, 0.03, 0.3), "reorganised_blocks": random.randint(1, 3)}
        case Fault.LOST_TRANSACTION:
            return {"lost_transaction": _rate(random, 0.01, 0.5)}


def _rate(random: Random, least: float, most: float) -> float:
    """Log-uniform, so that rare and frequent are equally likely."""
    return least * (most / least) ** random.random()


def _between(random: Random, least: int, most: int) -> int:
    return round(_rate(random, least, most))
