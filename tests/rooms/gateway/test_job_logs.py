"""What a job prints reaches its gateway whole and once, whatever the link between them loses."""

import asyncio
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.gateway.adapters.jobs import leasing
from clusterai.gateway.adapters.jobs.leasing import Leasing
from clusterai.gateway.core.jobplacing import DeskTerms
from clusterai.gateway.core.jobstate import Accepted, Held, Placed
from clusterai.ledger.core import events
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.jobs import AskLog, Broken, Done, Logged, Progress
from clusterai.protocol.leases import Terms
from clusterai.runtime.machine import Linked, Received, Unlinked
from clusterai.sdk.jobshapes import JobEvent
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import JobArray, JobSpec
from tests.rooms.node.lendingbed import DOMAINS, GATEWAY, ME, Bed

JOB, ACCOUNT = Digest(b"\x0a" * 32), Digest(b"\x0b" * 32)
PROGRAM = """
import os, sys
segment = int(os.environ["CLUSTERAI_SEGMENT"])
for number in range(8000):
    print(f"segment {segment} line {number}")
print(f"done {segment}", file=sys.stderr)
sys.exit(0 if segment == 3 else 75)
"""
STDOUT = "".join(f"segment {segment} line {number}\n" for segment in (1, 2, 3) for number in range(8000))
STDERR = "done 1\ndone 2\ndone 3\n"


class Desk:
    """A gateway's end. `loses` says which frames of the provider's never come."""

    def __init__(self, folder: Path, bed: Bed, loses: Callable[[Any], bool] = lambda _: False) -> None:
        self.bed, self.loses = bed, loses
        self.is_linked = True
        self.asked = 0
        terms = DeskTerms(GATEWAY, DOMAINS[0], ZERO_ADDRESS, 10)
        self.leasing = Leasing(
            folder / "desk", terms, "NORMAL", self._send, lambda _: None, lambda _: None, 1 << 30
        )
        bed.on_frame = self.hear

    def take(self, spec: JobSpec, terms: Terms) -> None:
        """The job as the desk has it once its lease is placed, opened and accepted."""
        array = JobArray(spec).canonical()
        records = [
            Accepted(JOB, ACCOUNT, array, Wishes(), 1, 10**16),
            Held(JOB),
            Placed(JOB, 0, terms),
        ]
        self.leasing.desk.restore(records)
        lease = terms.lease_id(DOMAINS[0])
        self.leasing.hear(events.LeaseOpened(lease, GATEWAY, ME, terms))
        self.leasing.hear(events.LeaseAccepted(lease))

    def hear(self, frame: Any) -> None:
        if self.is_linked and isinstance(frame, Logged | Progress | Done | Broken) and not self.loses(frame):
            self.leasing.hear(Received(ME, frame))

    def _send(self, to: Address, frame: Any) -> bool:
        assert to == ME
        self.asked += isinstance(frame, AskLog)
        if self.is_linked and isinstance(frame, AskLog):
            asyncio.get_running_loop().call_soon(self.bed.say, frame)
        return self.is_linked

    def link(self, up: bool) -> None:
        self.is_linked = up
        self.leasing.hear(Linked(ME) if up else Unlinked(ME))

    def told(self, stream: str) -> str:
        """As `clusterai jobs logs` puts it together."""
        found = [
            msgspec.json.decode(body, type=JobEvent) for _, body in self.leasing.story.since(JOB, 0, 10**6)
        ]
        return b"".join(
            b64decode(it.text) for it in found if it.kind == "log" and it.stream == stream
        ).decode()

    async def has_all(self) -> None:
        async with asyncio.timeout(120):
            while (self.told("stdout"), self.told("stderr")) != (STDOUT, STDERR):
                await self.leasing.story.news(JOB)


def begin(folder: Path, bed: Bed, loses: Callable[[Any], bool] = lambda _: False) -> tuple[Desk, Digest]:
    spec = bed.spec("python main.py", inputs=(bed.root(main_py=PROGRAM),), segments=3)
    lease = bed.start(spec)
    desk = Desk(folder, bed, loses)
    desk.take(spec, bed.lending.book.leases[lease].terms)
    return desk, lease


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "LOG_AGAIN_S", 0.2)


LOSSES: list[Callable[[Any], bool]] = [
    lambda frame: False,
    lambda frame: isinstance(frame, Logged) and frame.start == 0,
    lambda frame: (
        isinstance(frame, Logged) and bool(frame.data) and frame.start % 3 == 0 and frame.total < 200_000
    ),
]


@pytest.mark.parametrize("loses", LOSSES)
def test_lost_pieces_are_asked_for(tmp_path: Path, loses: Callable[[Any], bool]):
    """Pieces vanish while the link is up: each line comes once and in its place."""

    async def test() -> None:
        bed = Bed(tmp_path)
        once: set[Any] = set()

        def loses_once(frame: Any) -> bool:
            if loses(frame) and frame not in once:
                once.add(frame)
                return True
            return False

        desk, _ = begin(tmp_path, bed, loses_once)
        await bed.done()
        await desk.has_all()
        await bed.lending.close()
        desk.leasing.close()

    asyncio.run(test())


def test_what_was_printed_while_the_link_was_down_is_not_lost(tmp_path: Path):
    """It went down behind the first lines and came back when all was done."""

    async def test() -> None:
        bed = Bed(tmp_path)
        desk, _ = begin(tmp_path, bed, lambda frame: isinstance(frame, Done))
        hear = bed.on_frame

        def cut(frame: Any) -> None:
            hear(frame)
            if isinstance(frame, Logged) and desk.is_linked:
                desk.link(False)

        bed.on_frame = cut
        await bed.done()
        assert 0 < len(desk.told("stdout")) < len(STDOUT)
        bed.on_frame = hear
        desk.link(True)
        await desk.has_all()
        assert desk.asked < 2 * (len(STDOUT) // 65536 + 4)
        await bed.lending.close()
        desk.leasing.close()

    asyncio.run(test())


def test_a_killed_node_prints_nothing_twice(tmp_path: Path):
    """It died in its second segment, behind lines that its gateway has: the next process prints them again, and nobody sees it."""

    async def test() -> None:
        bed = Bed(tmp_path)
        desk, lease = begin(tmp_path, bed)
        hear = bed.on_frame
        in_second = asyncio.Event()

        def look(frame: Any) -> None:
            hear(frame)
            if isinstance(frame, Logged) and b"segment 2 line 100\n" in frame.data:
                in_second.set()

        bed.on_frame = look
        await in_second.wait()
        terms = bed.lending.book.leases[lease].terms
        await bed.lending.close()
        desk.link(False)
        again = Bed(tmp_path)
        desk.bed, again.on_frame = again, desk.hear
        desk.link(True)
        again.chain()
        again.shown(terms)
        await again.done()
        await desk.has_all()
        await again.lending.close()
        desk.leasing.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    "told",
    [
        {"start": 0, "total": 2**62, "data": b""},
        {"start": 2**62, "total": 2**63 - 1, "data": b"far"},
        {"start": 0, "total": 0, "data": b"more than there is"},
    ],
)
def test_a_lying_provider_gets_few_questions_and_can_fill_nothing(tmp_path: Path, told: dict[str, Any]):
    """Whatever it says of its log, it is asked for the same piece once in a while, and a gap is never told as log."""

    async def test() -> None:
        bed = Bed(tmp_path)
        desk, lease = begin(tmp_path, bed)
        await bed.done()
        await desk.has_all()
        bed.on_frame = lambda _: None
        asked = desk.asked
        for _ in range(100):
            desk.leasing.hear(Received(ME, Logged(lease, is_error=False, **told)))
        assert desk.asked <= asked + 1
        assert desk.told("stdout") == STDOUT
        await bed.lending.close()
        desk.leasing.close()

    asyncio.run(test())


def test_another_gateway_gets_no_line(tmp_path: Path):
    """A log belongs to the lease's own gateway; what isn't a lease here gets no answer."""

    async def test() -> None:
        bed = Bed(tmp_path)
        _, lease = begin(tmp_path, bed)
        await bed.done()
        bed.seen.clear()
        bed.lending.hear(Received(Address(b"\x09" * 20), AskLog(lease, is_error=False, start=0)))
        bed.say(AskLog(Digest(bytes(32)), is_error=False, start=0))
        assert bed.seen == []
        await bed.lending.close()

    asyncio.run(test())
