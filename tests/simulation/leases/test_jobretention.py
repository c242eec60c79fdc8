"""What a gateway's desk forgets, and what it never does: a job that somebody's money hangs on."""

import msgspec
import pytest

from clusterai.gateway.core import jobdesk
from clusterai.gateway.core.jobretention import doomed, is_free
from clusterai.gateway.core.jobstate import Accepted, Cancel, Job, Slot
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.leases import CloseReason
from clusterai.runtime.machine import Tick
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import Image, JobArray, JobSpec, Resources
from tests.simulation.leases.world import CREDIT, SEGMENTS, World, honest, skipper

SPEC = JobSpec(
    name="sums",
    check="wasm",
    image=Image("wasm", b"\x07" * 32),
    segments=SEGMENTS,
    fuel=SEGMENTS,
    resources=Resources(time_s=60),
)
MONTH_S = 30 * 86_400


def job(account: int, number: int, ended_s: int | None, *, ended: bool = True) -> Job:
    array = JobArray(SPEC)
    name = Digest(bytes([account, number]) * 16)
    found = Job(
        name, Digest(bytes([account]) * 32), array, b"", Wishes(), 0, 0, [Slot(0, 0, over="cancelled")]
    )
    found.ended, found.ended_s = ended, ended_s
    return found


def names(jobs: list[Job]) -> list[tuple[int, int]]:
    return [(it.id[0], it.id[1]) for it in jobs]


@pytest.mark.parametrize(
    ("now_s", "gone"), [(109, []), (110, [(1, 1)]), (119, [(1, 1)]), (120, [(1, 1), (1, 2)])]
)
def test_time_forgets_what_ended(now_s: int, gone: list[tuple[int, int]]) -> None:
    """At the second, not before; what runs stays however old it is."""
    jobs = [job(1, 1, 10), job(1, 2, 20), job(1, 3, None, ended=False)]
    assert names(doomed(jobs, (), now_s, 100, 10)) == gone


def test_who_keeps_most_loses_the_oldest() -> None:
    """At the bound nothing goes; beyond it a flood of jobs pushes out its own, and nobody else's older ones."""
    flood = [job(2, number, 100 + number) for number in range(20)]
    others = [job(1, 1, 1), job(3, 1, 2)]
    assert doomed([*flood, *others], (), 200, 1000, 22) == []
    assert names(doomed([*flood, *others], (), 200, 1000, 21)) == [(2, 0)]
    assert names(doomed([*others, *flood], (), 200, 1000, 5)) == [(2, number) for number in range(17)]


def test_money_holds_a_job() -> None:
    """An open lease, a cost that no tab has taken, an end that this process hasn't told the tab: each alone keeps it."""
    old = job(1, 1, 0)
    assert names(doomed([old], (), 10**9, 1, 0)) == [(1, 1)]
    assert doomed([old], {old.id}, 10**9, 1, 0) == []
    assert not is_free(job(1, 1, 0, ended=False))
    leased = job(1, 1, 0)
    leased.slots[0].lease = Digest(b"\x09" * 32)
    assert doomed([leased], (), 10**9, 1, 0) == []


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_forgotten_before_all_money_is_settled(seed: int) -> None:
    """A desk that keeps ended jobs for no time at all, while everybody dies and frames are lost: still charged once, and all is back."""
    world = World(
        seed, {"ann": skipper, "bob": honest}, crash=0.02, loss=0.2, desk=True, serves=lambda it: it != "ann"
    )
    assert world.desk is not None
    make = world.desk._make  # pyright: ignore[reportPrivateUsage]

    def hasty() -> object:
        desk = make()
        desk.terms = msgspec.structs.replace(desk.terms, keep_s=0, most_ended=0)
        return desk

    world.desk._make = hasty  # pyright: ignore[reportPrivateUsage]
    world.desk.restart()
    for number in range(3):
        world.submit(JobArray(SPEC), Wishes(retries=2, retry_until_placed=True), nonce=bytes([number]))
    for _ in range(1500):
        world.turn()
        if world.answers and not world.desk.machine.jobs:
            break
    assert world.desk.machine.jobs == {}
    assert not world.till.tabs.open
    assert world.credit == CREDIT - sum(world.charged.values())
    assert {CloseReason(it.reason) for it in world.closed.values()} >= {CloseReason.COMPLETED}
    assert world.desk.machine._by_lease == {}  # pyright: ignore[reportPrivateUsage]
    assert world.desk.machine._unpaid == {}  # pyright: ignore[reportPrivateUsage]
    restored = make()
    decoder = msgspec.msgpack.Decoder(restored.RECORDS)
    restored.restore(decoder.decode(record) for record in world.desk.journal)
    assert restored.jobs == {}
    assert restored.snapshot() == []


def test_a_month_later_it_is_gone_and_its_key_is_free() -> None:
    """Listed until then, also by a desk that was restarted; after it the same key begins a job anew."""
    world = World(1, {"ann": honest}, desk=True)
    assert world.desk is not None
    world.submit(JobArray(SPEC))
    world.settle()
    (done,) = world.desk.machine.jobs.values()
    began_s, world.now_s = world.now_s, world.now_s + MONTH_S - 120
    world.desk.restart()
    world.desk.hear(Tick())
    assert [*world.desk.machine.jobs] == [done.id]
    world.now_s = began_s + MONTH_S + 61
    world.desk.hear(Tick())
    assert world.desk.machine.jobs == {}
    world.submit(JobArray(SPEC))
    assert [*world.desk.machine.jobs] == [done.id]


def test_a_job_that_was_refused_for_credit_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds nothing, so it is over at once, and doesn't count as open for ever."""
    monkeypatch.setattr(jobdesk, "MOST_JOBS", 1)
    world = World(7, {"ann": honest}, desk=True)
    world.till.account(ZERO_DIGEST).funded_wei = 0
    for number in range(3):
        world.submit(JobArray(SPEC), nonce=bytes([number]))
        world.settle(3)
    assert [refusal for _, refusal in world.answers] == ["insufficient_credit"] * 3
    assert world.desk is not None
    assert all(is_free(it) for it in world.desk.machine.jobs.values())


def test_a_job_cancelled_before_its_tab_answered_gives_the_money_back() -> None:
    """The desk died in between: the tab is asked for again, for only who has it open can close it."""
    world = World(8, {"ann": honest}, desk=True)
    assert world.desk is not None
    world.submit(JobArray(SPEC))
    (name,) = world.desk.machine.jobs
    world.desk.hear(Cancel(name))
    records = [canonical.decode(it, Accepted) for it in world.desk.journal[:1]]
    assert records[0].job == name
    world.desk.restart()
    world.settle(200)
    assert world.credit == CREDIT
    assert not world.till.tabs.open
    assert is_free(world.desk.machine.jobs[name])
