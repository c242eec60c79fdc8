"""What a node keeps of a lease: sealed while it is there, servable as long as anybody may ask, and noise when that is over."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from clusterai.ledger.core import events
from clusterai.protocol.ids import Digest
from clusterai.protocol.jobs import AskContent, Logged
from clusterai.sandbox import NoSuchBlob, Quota, StoreFull, Volumes
from clusterai.sandbox.adapters.growing import Appended, Incoming
from clusterai.sandbox.adapters.volume import WrongKey
from tests.rooms.node.lendingbed import GATEWAY, ME, NOW_S, Bed, every_byte

MARKS = [b"INPUT-7f3a", b"STATE-7f3a", b"OUTPUT-7f3a", b"LOG-7f3a"]
PROGRAM = """
import os, sys
segment = int(os.environ["CLUSTERAI_SEGMENT"])
print("L" + "OG-7f3a", segment, flush=True)
open("kept", "a").write("ST" + f"ATE-7f3a {segment}" + chr(10))
open("result", "w").write("OUT" + "PUT-7f3a")
sys.exit(0 if segment == 3 else 75)
"""


def in_the_clear(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, mark) for path, raw in every_byte(folder) for mark in MARKS if mark in raw]


async def finished(bed: Bed) -> Digest:
    """A lease of three segments, done and committed."""
    inputs = (bed.root(main_py=PROGRAM, data=MARKS[0].decode() * 300_000),)
    lease = bed.start(bed.spec("python main.py", inputs=inputs, outputs=("result",), segments=3, stdout=True))
    await bed.done()
    bed.commit(lease)
    return lease


def states(bed: Bed, lease: Digest) -> list[Digest]:
    done = bed.lending.book.leases[lease].done
    assert done is not None
    return [Digest(state) for state in done.states]


def test_a_disk_shows_nothing_of_a_job_at_any_time(tmp_path: Path) -> None:
    """At every frame, from the first part of an input to the last of an output, and after: no file of the node holds any of it."""

    async def test() -> None:
        bed = Bed(tmp_path)
        looked: list[str] = []

        def look(frame: Any) -> None:
            looked.append(type(frame).__name__)
            assert in_the_clear(bed.folder) == []

        bed.on_frame = look
        lease = await finished(bed)
        assert {"AskContent", "Logged", "Progress", "Done"} <= set(looked)
        assert sum(name == "AskContent" for name in looked) > 4, "an input came in several parts"
        assert b"LOG-7f3a" in b"".join(it.data for it in bed.seen if isinstance(it, Logged))
        book = bed.lending.book.leases[lease]
        assert book.done is not None
        bed.say(AskContent(lease, book.done.output, 0))
        assert in_the_clear(bed.folder) == []
        await bed.lending.close()
        assert in_the_clear(bed.folder) == []

    asyncio.run(test())
    assert list(Path("/dev/shm").glob(f"clusterai-{os.getpid()}-*")) == []


def test_after_its_end_nothing_can_be_read_by_anybody(tmp_path: Path) -> None:
    """The lease's own key is on no disk any more: neither the node nor a thief of all it ever wrote can open a copy of the volume."""

    async def test() -> None:
        bed = Bed(tmp_path)
        lease = await finished(bed)
        volume = bed.folder / "leases" / lease.hex()
        held, (state, *_) = bed.lending.jobs.volumes.of(lease), states(bed, lease)
        shutil.copytree(volume, tmp_path / "stolen")
        wrapped = wrapped_key(bed)
        assert any(wrapped in raw for _, raw in every_byte(bed.folder))
        bed.close(lease)
        assert held.read(state), "its gateway may still fetch"
        bed.gone()
        assert not volume.exists()
        with pytest.raises(NoSuchBlob):
            held.read(state)
        assert not any(wrapped in raw for _, raw in every_byte(bed.folder))
        await bed.lending.close()
        assert not any(wrapped in raw for _, raw in every_byte(bed.folder))
        shutil.copytree(tmp_path / "stolen", volume)
        again = Bed(tmp_path)
        assert again.lending.jobs.volumes.leases() == ()
        assert not volume.exists(), "what no key opens is removed"
        await again.lending.close()

    asyncio.run(test())


def wrapped_key(bed: Bed) -> bytes:
    with sqlite3.connect(bed.folder / "leases" / "keys.sqlite") as keys:
        ((wrapped,),) = keys.execute("select wrapped from lease_key").fetchall()
    keys.close()
    return wrapped


def test_a_node_that_starts_again_can_show_every_state(tmp_path: Path) -> None:
    """Its key unwraps the lease's; another key opens nothing, and says so before anything is thrown away."""

    async def test() -> None:
        bed = Bed(tmp_path)
        lease = await finished(bed)
        await bed.lending.close()
        with pytest.raises(WrongKey, match="another key"):
            Bed(tmp_path, secret=b"another's")
        again = Bed(tmp_path)
        store = again.lending.jobs.volumes.of(lease)
        assert all(store.read(state) for state in states(again, lease))
        await again.lending.close()

    asyncio.run(test())


def test_a_crash_while_a_lease_ends_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It died behind the record and before the key was destroyed: that is made up for when it starts."""

    async def test() -> None:
        bed = Bed(tmp_path)
        lease = await finished(bed)
        wrapped = wrapped_key(bed)

        def dies(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(bed.lending.jobs, "discard", dies)
        bed.close(lease)
        with pytest.raises(KeyboardInterrupt):
            bed.gone()
        await bed.lending.close()
        again = Bed(tmp_path)
        assert again.lending.jobs.volumes.leases() == ()
        assert not (again.folder / "leases" / lease.hex()).exists()
        await again.lending.close()
        assert not any(wrapped in raw for _, raw in every_byte(again.folder))

    asyncio.run(test())


def test_a_lease_is_kept_while_anything_may_be_asked(tmp_path: Path) -> None:
    """Closed, but the block was undone, or a dispute is open: the states stay until that is over too."""

    async def test() -> None:
        bed = Bed(tmp_path)
        lease = await finished(bed)
        store = bed.lending.jobs.volumes.of(lease)
        (state, *_) = states(bed, lease)
        bed.close(lease)
        bed.chain(events.RolledBack(bed.block - 1))
        bed.gone()
        assert store.read(state)
        bed.chain(
            events.DisputeOpened(
                lease, GATEWAY, ME, 1, Digest(bytes(32)), Digest(bytes(32)), Digest(bytes(32)), NOW_S
            )
        )
        bed.close(lease)
        bed.gone()
        assert store.read(state)
        bed.chain(events.DisputeEnded(lease, ME, 1))
        bed.gone()
        with pytest.raises(NoSuchBlob):
            store.read(state)
        await bed.lending.close()

    asyncio.run(test())


def test_one_quota_holds_over_all_volumes(tmp_path: Path) -> None:
    """What one lease takes another can't have; what an ended one held can be had again; a restart counts the same."""
    quota = Quota(3000)
    volumes = Volumes(tmp_path, b"hot", quota)
    one, two = (volumes.of(Digest(bytes([number]) * 32)) for number in (1, 2))
    one.put(bytes(2000))
    with pytest.raises(StoreFull):
        two.put(bytes(2000))
    coming = Incoming(two, Digest(bytes(32)))
    with pytest.raises(StoreFull):
        coming.add(bytes(2 << 20), more=True)
    log = Appended(two, "log")
    log.append(bytes(500))
    with pytest.raises(StoreFull):
        log.append(bytes(500))
    used = quota.used_bytes
    volumes.close()
    again = Quota(3000)
    volumes = Volumes(tmp_path, b"hot", again)
    assert again.used_bytes == used
    volumes.end(Digest(b"\1" * 32))
    volumes.of(Digest(b"\2" * 32)).put(bytes(2000))
    volumes.end(Digest(b"\2" * 32))
    assert again.used_bytes == 0
    volumes.close()


def test_a_lease_gets_no_content_of_another(tmp_path: Path) -> None:
    """A module and an input that a lease brought aren't there for the next, which has to bring them too."""

    async def test() -> None:
        bed = Bed(tmp_path)
        first = await finished(bed)
        (root,) = bed.lending.book.leases[first].spec.inputs
        other = bed.lending.jobs.volumes.of(Digest(b"\7" * 32))
        assert Digest(root.digest) in bed.lending.jobs.volumes.of(first)
        assert Digest(root.digest) not in other
        await bed.lending.close()

    asyncio.run(test())
