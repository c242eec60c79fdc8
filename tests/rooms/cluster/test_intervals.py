"""An interval of a rented machine: ordered, answered by heartbeats, recounted, checked; and those who make it up."""

import asyncio
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.audit.core import sequential
from clusterai.audit.core.opening import MAX_REQUEST_BYTES
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.messages import Answer
from clusterai.work import KINDS
from clusterai.work.cluster.check import check_part, judge_answer
from clusterai.work.cluster.core.heartbeats import Beat, Cell, beats_of, tokens_of, wrong
from clusterai.work.cluster.inside.sentinel import first, link
from clusterai.work.cluster.price import cap_wei, recount, unit_price_wei
from clusterai.work.cluster.spec import MOST_CELLS, MOST_CORES, Interval, beats_for, decode_interval

SEED = hashlib.sha256(b"seed").digest()


def interval(cores: int = 2, beats: int = 3, rate: int = 1_000) -> Interval:
    """Its chains make one link a second alone, so that a test can do them all."""
    return Interval(bytes(32), 0, 2 * beats, beats, cores, rate, 4_000, SEED, bytes(32))


def worked(asked: Interval, links: int = 2, tenant_ms: int = 0, foreign: int = 0) -> tuple[Beat, ...]:
    """What an honest machine answers: every beat two seconds and `links` links after the one before."""
    values = [first(SEED, core) for core in range(asked.cores)]
    beats: list[Beat] = []
    for at in range(1, asked.beats + 1):
        for _ in range(links):
            values = [link(value, SEED) for value in values]
        beats.append(Beat(2_000 * at, tenant_ms * at, foreign, tuple(Cell(links, it) for it in values)))
    return tuple(beats)


def told(beats: tuple[Beat, ...]) -> tuple[int, ...]:
    return tuple(token for beat in beats for token in tokens_of(beat))


def lot(at: int) -> bytes:
    return at.to_bytes(32, "big")


def test_heartbeats_come_back_as_they_were_told():
    """Tokens and beats are one another's reading."""
    beats = worked(interval(), tenant_ms=77)
    assert beats_of(2, told(beats)) == beats
    assert wrong(interval(), told(beats), "stop") is None


def test_honest_time_is_paid_to_the_tenth_of_a_second():
    """Six seconds in which the chains could do all they can are sixty units."""
    asked = interval()
    assert recount(asked, told(worked(asked))) == (0, 60)
    assert cap_wei(asked, 0, unit_price_wei(36_000)) == 60
    assert unit_price_wei(36_001) == 2


def test_what_the_tenant_used_counts_as_what_the_chains_left():
    """A busy tenant's machine is as fully paid as an idle one's."""
    asked = interval()
    assert recount(asked, told(worked(asked, links=1, tenant_ms=2_000))) == (0, 60)


def test_stolen_time_is_not_paid():
    """Chains that could do half of what they can, beside an idle tenant, are half of the time."""
    asked = interval()
    assert recount(asked, told(worked(asked, links=1))) == (0, 30)


def test_time_with_strangers_on_the_machine_is_not_paid():
    """A machine that isn't its tenant's alone earns nothing by those beats."""
    asked = interval()
    assert recount(asked, told(worked(asked, foreign=1))) == (0, 0)


def test_unmeasured_machines_are_paid_by_the_clock():
    """Where no validator measured the chains, time counts as it passed, and never for more than was asked."""
    asked = interval(rate=0)
    assert recount(asked, told(worked(asked, links=1))) == (0, 60)
    late = [*worked(asked)[:-1], msgspec.structs.replace(worked(asked)[-1], elapsed_ms=7_900)]
    assert recount(asked, told(tuple(late))) == (0, 60)


def test_a_cancelled_interval_is_paid_as_far_as_it_came():
    """Two beats of three are two thirds; a torn one is nothing."""
    asked = interval()
    tokens = told(worked(asked))
    size = len(tokens) // 3
    assert recount(asked, tokens[: 2 * size]) == (0, 40)
    assert recount(asked, tokens[: 2 * size + 5]) == (0, 40)
    assert recount(asked, tokens[: size - 1]) == (0, 0)
    assert wrong(asked, tokens[: 2 * size + 5], "cancelled") is None


def test_the_audit_finds_honest_chains_right():
    """Whatever span is drawn, and all of them."""
    asked = interval()
    tokens = told(worked(asked))
    for at in range(12):
        findings = asyncio.run(check_part(asked, tokens, "stop", lot(at)))
        assert (findings.matches, findings.weight_milli) == (1, -1_000)
    findings, gaps = asyncio.run(judge_answer(None, asked, tokens, "stop"))
    assert findings.matches == 6
    assert gaps == [0.0] * 6


def test_a_made_up_chain_is_caught_when_its_span_is_drawn():
    """One false span of six: drawn by some lots, missed by others, and one finding convicts from the floor."""
    asked = interval()
    beats = list(worked(asked))
    forged = msgspec.structs.replace(beats[1].cells[1], value=bytes(32))
    beats[1] = msgspec.structs.replace(beats[1], cells=(beats[1].cells[0], forged))
    tokens = told(tuple(beats))
    found = [asyncio.run(check_part(asked, tokens, "stop", lot(at))) for at in range(40)]
    caught = [it for it in found if it.weight_milli > 0]
    # The forged value ends one span and begins another.
    assert 4 <= len(caught) <= 24
    assert sequential.convinced(sequential.add(sequential.FLOOR_MILLI, caught[0].weight_milli))
    findings, gaps = asyncio.run(judge_answer(None, asked, tokens, "stop"))
    assert findings.matches == 4
    assert gaps.count(float("inf")) == 2


def test_claiming_more_links_than_were_done_is_caught():
    """The number of links is a part of what is done again."""
    asked = interval()
    beats = worked(asked)
    more = tuple(
        msgspec.structs.replace(beat, cells=tuple(Cell(it.links + 1, it.value) for it in beat.cells))
        for beat in beats
    )
    for at in range(6):
        assert asyncio.run(check_part(asked, told(more), "stop", lot(at))).weight_milli > 0


def test_chains_of_another_seed_are_no_answer():
    """What was done before the seed was known shows at once."""
    asked = msgspec.structs.replace(interval(), seed=bytes(32))
    tokens = told(worked(interval()))
    assert all(asyncio.run(check_part(asked, tokens, "stop", lot(at))).weight_milli > 0 for at in range(6))


def forgeries() -> list[tuple[str, tuple[Beat, ...]]]:
    asked = interval()
    good = worked(asked)
    replace = msgspec.structs.replace
    return [
        ("aren't in order", (good[0], replace(good[1], elapsed_ms=2_000), good[2])),
        ("aren't in order", (replace(good[0], elapsed_ms=0), *good[1:])),
        ("too late", (*good[:2], replace(good[2], elapsed_ms=8_001))),
        ("shrink", (replace(good[0], tenant_ms=9), *good[1:])),
        ("were asked", good[:2]),
        ("were asked", (*good, replace(good[2], elapsed_ms=6_500))),
    ]


@pytest.mark.parametrize(("why", "beats"), forgeries())
def test_impossible_heartbeats_are_refused(why: str, beats: tuple[Beat, ...]):
    """Who ordered the interval doesn't pay for what can't be."""
    assert why in (wrong(interval(), told(beats), "stop") or "")


@given(st.lists(st.integers(0, 2**24), max_size=120), st.sampled_from(["stop", "cancelled", "length"]))
def test_no_tokens_break_the_reader(tokens: list[int], reason: str):
    """Any answer is either refused or recounted within the cap."""
    asked = interval()
    wrong(asked, tuple(tokens), reason)
    units = recount(asked, tuple(tokens))
    assert 0 <= units[1] <= cap_wei(asked, 0, 1)


@pytest.mark.parametrize("cores", [1, 2, 18, 19, 64, 99, 100, 149, 150])
def test_an_interval_fits_an_answer_on_chain(cores: int):
    """However many cores, the largest answer and its request can be shown in one transaction."""
    beats = beats_for(cores)
    assert 1 <= beats <= 15
    assert cores * beats <= MOST_CELLS
    worst = Beat(2**24, 2**24, 2**24, (Cell(2**24, b"\xff" * 32),) * cores)
    answer = canonical.encode(Answer(tokens_of(worst) * beats, "stop"))
    request = Interval(SEED, 2**32, 2 * beats, beats, cores, 10**9, 4_000, SEED, SEED).canonical()
    assert len(answer) + len(request) < 24_576 - 1_024
    assert len(request) < MAX_REQUEST_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"beats": 0},
        {"beats": 16},
        {"seconds": 0},
        {"seconds": 31},
        {"cores": 0},
        {"cores": MOST_CORES + 1},
        {"cores": 101, "beats": 3},
        {"slack_ppm": 13_001},
        {"links_per_s_milli": -1},
        {"seed": bytes(31)},
        {"number": -1},
    ],
)
def test_intervals_beyond_the_bounds_are_malformed(change: dict[str, object]):
    """Strict at the door: nothing beyond a limit is decoded."""
    fields = msgspec.structs.asdict(interval()) | change
    raw = msgspec.msgpack.encode(["cluster.1", *fields.values()])
    with pytest.raises(Malformed):
        decode_interval(raw)


def test_the_kind_is_known_to_the_daemons():
    """By name, with a check that needs no engine."""
    assert KINDS["cluster"].check_part is check_part
    assert decode_interval(interval().canonical()) == interval()
