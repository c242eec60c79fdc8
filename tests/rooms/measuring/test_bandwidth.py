"""How fast a machine reads memory: measured beside what is claimed, and who reads less than that shows no more."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from blake3 import blake3

from clusterai.audit.core import pages, sweeps
from clusterai.node.adapters.exerciser import Exerciser, Order
from clusterai.protocol import canonical, merkle
from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import (
    Claims,
    Declined,
    Fill,
    Filled,
    Finding,
    Part,
    ShowSweep,
    Sweep,
    Swept,
    chain_seed,
)
from clusterai.validator.core.examination import Outcome
from tests.rooms.measuring.machine_played import Played, claims, examined

ROW = "memory_read_kbytes_per_s"
SEED = Digest(bytes(range(32)))


def claiming(kbytes_per_s: int) -> Claims:
    return msgspec.structs.replace(claims(), memory_kbytes_per_s=kbytes_per_s)


def read(machine: Played) -> Finding:
    came = examined(machine)
    assert isinstance(came, Outcome), came
    return next(it for it in came.found if it.name == ROW)


def test_reading_is_measured_beside_the_claim() -> None:
    """What is found is what was read in the time that it took, line and all, and the claim stands beside it."""
    row = read(Played(claiming(1_000_000)))
    assert row.claimed == 1_000_000
    assert row.found is not None
    # 3 x 1 MiB at 1 GB/s, and a round trip of 10 ms.
    assert row.found == round(3 * 2**20 / (3 * 2**20 / 10**9 + 0.01) / 1000)
    assert "caches" in row.note


def test_who_says_nothing_is_measured_all_the_same() -> None:
    """Without a claim the row says what was found."""
    row = read(Played(claims()))
    assert row.claimed is None
    assert row.found


class Boaster(Played):
    """Claims a hundred times what its memory does."""


class Idler(Played):
    """Reads nothing, and answers at once with roots that it made up."""

    def sweep(self, seed: Digest, test: Sweep) -> tuple[Any, float]:
        super().sweep(seed, test)
        made = tuple(Digest(blake3(bytes([it])).digest()) for it in range(test.rounds))
        return Swept((made,) * len(self.filled)), 0.0


class Fewer(Played):
    """Reads the first round alone, and says that the others came to the same."""

    def sweep(self, seed: Digest, test: Sweep) -> tuple[Any, float]:
        super().sweep(seed, test)
        for at, it in self.filled.items():
            once = sweeps.Sweep(it, chain_seed(seed, at), 1)
            self.swept[at]._values = once._values * test.rounds  # pyright: ignore[reportPrivateUsage]
            self.swept[at]._trees = once._trees * test.rounds  # pyright: ignore[reportPrivateUsage]
        return Swept(tuple(it.roots for it in self.swept.values())), 0.001


class Fused(Played):
    """Goes over its memory once for all rounds, under keys that it chose itself, since the real ones come one after the other."""

    def sweep(self, seed: Digest, test: Sweep) -> tuple[Any, float]:
        super().sweep(seed, test)
        for at, it in self.filled.items():
            all_ = [sweeps.Sweep(it, chain_seed(seed, 1000 * at + turn), 1) for turn in range(test.rounds)]
            mine = self.swept[at]
            mine._values = [one._values[0] for one in all_]  # pyright: ignore[reportPrivateUsage]
            mine._trees = [one._trees[0] for one in all_]  # pyright: ignore[reportPrivateUsage]
        return Swept(tuple(it.roots for it in self.swept.values())), 0.001


class Prepared(Played):
    """Read all of it before it was asked, under a seed of its own."""

    def sweep(self, seed: Digest, test: Sweep) -> tuple[Any, float]:
        return super().sweep(Digest(bytes(32)), test)[0], 0.0


class Halved(Played):
    """Reads every other page, and guesses the values of those between."""

    def sweep(self, seed: Digest, test: Sweep) -> tuple[Any, float]:
        result, took_s = super().sweep(seed, test)
        for it in self.swept.values():
            for values in it._values:  # pyright: ignore[reportPrivateUsage]
                values[1::2] = values[::2]
        return result, took_s / 2


class Mute(Played):
    def sweep(self, seed: Digest, test: Sweep) -> tuple[Any, float]:
        return Declined("unable", "I don't read"), 0.0


class Secretive(Played):
    def showsweep(self, seed: Digest, test: ShowSweep) -> tuple[Any, float]:
        return b"\xc1 nonsense", 0.0


class Elsewhere(Played):
    """Shows other values than those that were drawn."""

    def showsweep(self, seed: Digest, test: ShowSweep) -> tuple[Any, float]:
        return super().showsweep(seed, msgspec.structs.replace(test, places=test.places[::-1]))


@pytest.mark.parametrize("cheat", [Idler, Fewer, Fused, Prepared, Halved, Mute, Secretive, Elsewhere])
def test_who_did_not_read_it_has_nothing(cheat: type[Played]) -> None:
    """What is found is nought, with a reason, whatever is claimed; nothing else of the card falls with it."""
    machine = cheat(claiming(50_000_000))
    row = read(machine)
    assert (row.claimed, row.found) == (50_000_000, 0)
    assert row.note
    came = examined(cheat(claims()))
    assert isinstance(came, Outcome)
    assert came.cpu_milli == 2_000


def test_a_claim_moves_nothing() -> None:
    """Who claims a hundred times as much is found to do what it does, and the card shows both numbers."""
    honest, boaster = read(Played(claiming(200_000))), read(Boaster(claiming(100_000_000)))
    assert honest.found == boaster.found
    assert boaster.claimed is not None
    assert boaster.found is not None
    assert boaster.claimed > 100 * boaster.found


def test_who_is_late_only_reads_slower() -> None:
    """Nothing is subtracted for the line: to be slow to echo buys no bandwidth."""
    near, far = read(Played(claims())), read(Played(claims(), rtt_s=0.2))
    assert near.found is not None
    assert far.found is not None
    assert far.found < near.found


def test_a_value_is_the_page_times_its_rounds_key() -> None:
    """Each key follows from the round before; values are words modulo 2^64; the last leaf is a short one."""
    filling = pages.Filling(SEED, sweeps.BLOCK + 3)
    swept = sweeps.Sweep(filling, SEED, 2)
    for turn, word in ((0, SEED), (1, swept.roots[0])):
        shown = swept.show((turn * filling.pages + sweeps.BLOCK + 1,))
        assert shown is not None
        (one,) = shown.drawn
        assert len(one.leaf) == 24
        words = np.frombuffer(one.page.data, "<u8")
        made = sum(int(a) * int(b) for a, b in zip(words, sweeps.key(word), strict=True)) % 2**64
        assert int.from_bytes(one.leaf[8:16], "little") == made
        leaf = Digest(blake3(b"clusterai sweep leaf" + (1).to_bytes(4) + one.leaf).digest())
        assert merkle.verify(swept.roots[turn], leaf, 1, 2, one.proof)
    assert swept.show((2 * filling.pages,)) is None


def test_the_nodes_own_process_does_it(tmp_path: Path) -> None:
    """Filled, swept and shown by real children, what comes back is right; of a fill that is over nothing comes."""
    exerciser = Exerciser(tmp_path, [0, 0])
    again = Digest(bytes(32))
    try:
        (filled,) = exerciser.do(Order(SEED, Fill(2, 70)))
        assert isinstance(filled, Filled)
        (swept,) = exerciser.do(Order(again, Sweep(SEED, 3)))
        assert isinstance(swept, Swept)
        places = sweeps.draw(SEED, 70, 3, 12)
        parts = [it for it in exerciser.do(Order(SEED, ShowSweep(again, 1, places))) if isinstance(it, Part)]
        shown = canonical.decode(b"".join(it.data for it in parts), sweeps.SweepShown)
        roots = [Digest(it) for it in swept.chains[1]]
        seed, root = chain_seed(again, 1), Digest(filled.roots[1])
        assert sweeps.differs(seed, 70, root, roots, places, shown) is None
        assert sweeps.differs(seed, 70, root, roots, places[::-1], shown) is not None
        (gone,) = exerciser.do(Order(SEED, ShowSweep(again, 1, (210,))))
        (stale,) = exerciser.do(Order(again, Sweep(again, 1)))
        assert isinstance(gone, Declined)
        assert isinstance(stale, Declined)
    finally:
        exerciser.close()
