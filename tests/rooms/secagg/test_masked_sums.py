"""Sums are exact whoever drops out, up to a third, in whichever phase; and the server may be killed anywhere."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.vault.core.secagg import graph, vectors
from clusterai.vault.core.secagg.collector import Failed, Heard
from clusterai.vault.core.secagg.messages import Masked
from clusterai.vault.core.secagg.transcript import drawn_chunks, fault, replay, sum_fault
from tests.rooms.secagg.played import LIBRARIES, Table, summed


def survivors(table: Table) -> set[int]:
    """Whose vectors arrived: who died before phase 2 is not in the sum."""
    return {i for i in range(len(table.members)) if table.dead_from.get(i, 5) > 2}


def check(table: Table) -> None:
    outcome = summed(table.play())
    there = survivors(table)
    assert (outcome.values == table.expected(set(range(len(table.members))) - there)).all()
    assert outcome.transcript.weights == {
        who: i + 1 for i, who in enumerate(graph.members(table.spec)) if i in there
    }
    assert fault(outcome.transcript, LIBRARIES) is None
    assert sum_fault(outcome.transcript, outcome.packed) is None
    for chunk in drawn_chunks(outcome.transcript, b"beacon", 3):
        assert replay(outcome.transcript, table.server.opening(chunk), LIBRARIES) is None
    assert not outcome.blamed


def test_a_sum_of_all_is_exact_and_its_transcript_replays():
    """Nobody drops out: the sum is the sum, and anyone can check it."""
    check(Table(5, length=1300))


@given(
    count=st.integers(3, 10),
    bits=st.sampled_from((20, 26, 32, 47, 64)),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_third_drops_out_anywhere_and_the_sum_is_exact(count: int, bits: int, data: st.DataObject):
    """Any third of the members may fall silent, each in any phase, at any modulus that holds the sum."""
    gone = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count // 3))
    check(Table(count, bits=bits, dead_from={i: data.draw(st.integers(0, 4)) for i in gone}))


def test_one_more_than_a_third_and_there_is_no_sum():
    """Past a third nothing is summed, and nothing is opened."""
    table = Table(9, dead_from=dict.fromkeys(range(4), 2))
    outcome = table.play()
    assert isinstance(outcome, Failed)
    assert outcome.phase == "vectors"
    assert "5 of 9" in outcome.detail
    assert not outcome.blamed


@given(
    at=st.sets(st.integers(1, 45), max_size=8),
    gone=st.dictionaries(st.integers(0, 8), st.integers(0, 4), max_size=3),
)
@settings(max_examples=30, deadline=None)
def test_a_server_killed_anywhere_resumes(at: set[int], gone: dict[int, int]):
    """From its journal a killed server asks again who hadn't answered, and ends with the same sum."""
    table = Table(9, dead_from=gone)
    outcome = summed(table.play(crash=lambda said: said in at))
    assert (outcome.values == table.expected(i for i, phase in gone.items() if phase <= 2)).all()
    assert fault(outcome.transcript, LIBRARIES) is None


def test_a_compacted_journal_restores_the_same_round():
    """A snapshot in the middle of a phase is as good as the journal."""
    table = Table(6)

    def compact(said: int) -> bool:
        if said == 15:
            table.journal[:] = table.server.snapshot()
            return True
        return False

    outcome = summed(table.play(crash=compact))
    assert (outcome.values == table.expected(())).all()


def test_sparse_neighbours_sum_as_exactly():
    """Each member masks with eight others only; a third drops out over all phases."""
    table = Table(30, degree=16, threshold=6, dead_from={i: i % 5 for i in range(0, 30, 3)})
    check(table)


def test_a_masked_vector_says_nothing_by_itself():
    """What the server holds of one member is uniform: twice the same input, two unrelated vectors."""
    words: list[npt.NDArray[np.uint32]] = []
    for _ in range(2):
        table = Table(3, length=4096, bits=32)
        table.inputs[:] = 0
        summed(table.play())
        heard = [record.frame for record in table.journal if isinstance(record, Heard)]
        words.extend(np.frombuffer(frame.vector, np.uint32) for frame in heard if isinstance(frame, Masked))
    for first in range(len(words)):
        assert abs(int(words[first].sum(dtype=np.uint64)) / 4096 / 2**32 - 0.5) < 0.03
        for second in range(first):
            assert int(np.sum(words[first] == words[second])) < 3


@pytest.mark.parametrize("bits", [2, 7, 8, 26, 31, 32, 33, 63, 64])
def test_packed_values_come_back(bits: int):
    """Packing takes exactly `bits` bits a value and loses none of them."""
    top = 2 ** (bits - 1)
    values = np.random.default_rng(bits).integers(-top, top - 1, 70_001, endpoint=True)
    data = vectors.pack(vectors.wrap(values, bits), bits)
    assert len(data) == vectors.packed_size(len(values), bits)
    assert (vectors.lift(vectors.unpack(data, len(values), bits), bits) == values).all()


def test_graphs_are_mutual_and_as_safe_as_they_say():
    """Neighbourhoods are symmetric, and the lightest safe graph meets both bounds."""
    table = Table(30, degree=10, threshold=5)
    for i in range(30):
        near = graph.neighbours(table.spec, i)
        assert len(near) == 10
        assert i not in near
        assert all(i in graph.neighbours(table.spec, j) for j in near)
    degree, threshold = graph.sparse(500, 50)
    assert 8 < degree < 150
    assert graph.betrayal(500, degree, threshold, 50) <= graph.SAFE
    assert graph.stall(500, degree, threshold) <= graph.LIVE
