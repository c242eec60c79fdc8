"""Native jobs as segments: what they are given, what stays, how they end, and where they go on."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, Leash, Log
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.base import host_base, inside
from clusterai.work.batch.adapters.journal import SegmentLog
from clusterai.work.batch.adapters.native import OnSegment
from clusterai.work.batch.adapters.needs import needs
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core import pinned
from clusterai.work.batch.core.outcome import Ended, Performed, Segment
from clusterai.work.batch.core.tree import Tree
from clusterai.work.batch.spec import MIB, Image, JobSpec, Resources
from tests.rooms.batch.conftest import MakeRoot

STEPS = "set -e; echo $CLUSTERAI_SEGMENT >> log; [ $CLUSTERAI_SEGMENT = 3 ] && exit 0; exit 75"
SMALL = Resources(memory_bytes=256 * MIB, disk_bytes=16 * MIB, time_s=60)


def job(base: Image, script: str, **fields: Any) -> JobSpec:
    made = JobSpec(
        name="t", check="pinned", image=base, argv=("/bin/sh", "-c", script), resources=SMALL, clock_s=10**9
    )
    return msgspec.structs.replace(made, **fields)


def run(
    performer: Performer, spec: JobSpec, on_segment: OnSegment | None = None, on_log: Log | None = None
) -> Performed:
    return asyncio.run(performer.perform(spec, on_segment=on_segment, on_log=on_log))


def text(store: BlobStore, tree: Tree, path: str) -> str:
    return next(store.read(Digest(it.digest)).decode() for it in tree.entries if it.path == path)


def test_a_segment_is_a_process(performer: Performer, store: BlobStore, base: Image):
    """Called until it doesn't say 75; what it leaves in its folder is there again, and each call is a unit."""
    seen: list[int] = []
    done = run(performer, job(base, STEPS, segments=4), on_segment=lambda at, _: seen.append(at))
    assert (done.ended, done.exit_code, done.units, seen) == (Ended.FINISHED, 0, (1, 1, 1), [1, 2, 3])
    assert text(store, done.output, "log") == "1\n2\n3\n"
    assert done.commitment().segments == 3
    assert all(state in store for state in done.states)


def test_inputs_lie_in_the_folder(performer: Performer, store: BlobStore, base: Image, root: MakeRoot):
    """Later inputs win, programs can be executed and stay programs, and only what is new or changed is output."""
    inputs = (
        root(a_txt="1", run_sh="#!/bin/sh\ncat a.txt sub/b.txt > c.txt\n"),
        root(a_txt="2", sub__b_txt="3"),
    )
    script = "./run.sh; [ $CLUSTERAI_SEGMENT = 2 ] || exit 75"
    done = run(performer, job(base, script, inputs=inputs, segments=2))
    assert done.ok, done.why
    assert text(store, done.output, "c.txt") == "23"
    assert [it.path for it in done.output.entries] == ["c.txt"]
    assert (
        performer.ends.outputs(job(base, script, inputs=inputs, segments=2), done.states[-1]) == done.output
    )


def test_setup_runs_once(performer: Performer, store: BlobStore, base: Image):
    """Before the first segment; what it leaves is there."""
    spec = job(
        base,
        "cat made; echo x >> made; [ $CLUSTERAI_SEGMENT = 2 ] || exit 75",
        segments=2,
        setup=("/bin/sh", "-c", "echo s > made"),
    )
    done = run(performer, spec)
    assert done.ok
    assert text(store, done.output, "made") == "s\nx\nx\n"
    failed = run(performer, msgspec.structs.replace(spec, setup=("false",)))
    assert (failed.ended, failed.why, failed.is_payable) == (Ended.FAILED, "setup ended with code 1", False)


def test_what_is_printed_is_a_file_if_asked_for(performer: Performer, store: BlobStore, base: Image):
    """All segments' output, as part of the state; and a log as it comes, in any case."""
    logged: list[bytes] = []
    spec = job(
        base,
        "echo $CLUSTERAI_SEGMENT; [ $CLUSTERAI_SEGMENT = 2 ] || exit 75",
        segments=2,
        stdout=True,
        outputs=("stdout",),
    )
    done = run(performer, spec, on_log=lambda stream, data: logged.append(data))
    assert text(store, done.output, "stdout") == "1\n2\n"
    assert b"".join(logged) == b"1\n2\n"


@pytest.mark.parametrize(
    ("script", "fields", "ended", "units", "word"),
    [
        ("exit 3", {}, Ended.FAILED, (1,), "code 3"),
        ("exit 75", {"segments": 2}, Ended.NOT_DONE, (1, 1), "after 2 segments"),
        ("true", {"outputs": ("gone", "out")}, Ended.OUTPUTS_MISSING, (1,), "without gone, out"),
        ("echo x > y", {"expected": bytes(32)}, Ended.OUTPUT_DIFFERS, (1,), "not the expected"),
        ("[ $CLUSTERAI_SEGMENT = 2 ] && sleep 60; exit 75", {"segments": 4, "resources": msgspec.structs.replace(SMALL, time_s=32)}, Ended.LIMIT, (1,), "segment 2 took longer than its share of the time, 8 s"),
        ("head -c 100000000 /dev/zero > big", {}, Ended.LIMIT, (), "disk_bytes"),
        ("cat /dev/urandom | head -c 8 > r", {}, Ended.NOT_DETERMINISTIC, (1,), "run twice"),
        ("kill -9 $$", {}, Ended.FAILED, (), "signal"),
    ],
)  # fmt: skip
def test_how_a_job_ends(
    performer: Performer,
    base: Image,
    script: str,
    fields: dict[str, Any],
    ended: Ended,
    units: tuple[int, ...],
    word: str,
):
    """Each with its own reason, and only states that another machine would find too."""
    done = run(performer, job(base, script, **fields))
    assert (done.ended, done.units) == (ended, units)
    assert word in done.why
    assert done.is_payable == (bool(units) and ended not in (Ended.NOT_DETERMINISTIC, Ended.OUTPUT_DIFFERS))


def test_a_python_job_reads_one_clock_and_one_chance(
    performer: Performer, store: BlobStore, base: Image, root: MakeRoot
):
    """Times, unseeded randomness, uuids and hashes are those of the spec, so a careless program is deterministic too."""
    code = """
import datetime, os, random, secrets, time, uuid
print(time.time(), datetime.datetime.now().isoformat(), datetime.date.today(), random.random(), uuid.uuid4(), secrets.token_hex(8),
      hash("x"), os.urandom(4).hex(), sorted({"a", "b", "c"}, key=hash), file=open("out.txt", "w"))
assert isinstance(datetime.datetime.strptime("2020", "%Y"), datetime.datetime) and issubclass(datetime.datetime, datetime.date)
"""
    spec = job(base, "python main.py", inputs=(root(main_py=code),), seed=7)
    done = run(performer, spec)
    assert done.ok, done.why
    found = text(store, done.output, "out.txt")
    assert found.startswith("1000000000.0 2001-09-09T01:46:40.000001 2001-09-09 ")
    other = run(performer, msgspec.structs.replace(spec, seed=8))
    assert text(store, other.output, "out.txt").split()[3:] != found.split()[3:]


def test_the_helper_shares_work_out(performer: Performer, store: BlobStore, base: Image, root: MakeRoot):
    """`clusterai_job.share` covers all items once over the segments, `checkpoint` ends all but the last."""
    code = """
import clusterai_job as job
with open("seen", "a") as file:
    print(*job.share(10), file=file)
job.checkpoint()
print("end", file=open("seen", "a"))
"""
    done = run(performer, job(base, "python main.py", inputs=(root(main_py=code),), segments=3))
    assert text(store, done.output, "seen") == "0 1 2\n3 4 5\n6 7 8 9\nend\n"


def test_a_killed_node_goes_on_from_its_last_checkpoint(
    store: BlobStore, tmp_path: Path, base: Image, performer: Performer
):
    """Finished segments aren't run again; the result is that of a run in one go."""

    class Killed(BaseException):
        pass

    def kill(at: int, segment: Segment) -> None:
        if at == 2:
            raise Killed

    spec = job(base, STEPS, segments=3, name="killed")
    first = Performer(store, tmp_path)
    with pytest.raises(Killed):
        run(first, spec, on_segment=kill)
    seen: list[int] = []
    done = run(Performer(store, tmp_path), spec, on_segment=lambda at, _: seen.append(at))
    assert (done.ok, done.resumed_at, seen) == (True, 2, [3])
    first.forget(spec)
    assert SegmentLog(store, spec.digest()).read() == []
    whole = run(performer, spec)
    assert (whole.states, whole.resumed_at) == (done.states, 0)


def test_a_torn_log_costs_one_segment(store: BlobStore, tmp_path: Path):
    """The last line isn't whole, or names a state that isn't there: everything before it counts."""
    own = BlobStore(tmp_path)
    job = Digest(bytes(32))
    log = SegmentLog(own, job)
    state = own.put(b"state")
    for segment in (Segment(state, 0), Segment(state, 1)):
        log.add(segment)
    with next(tmp_path.glob("grow-*")).open("ab") as file:
        file.write(b'\0\0\0\x20["half')
    log = SegmentLog(own, job)
    assert len(log.read()) == 2
    for segment in (Segment(Digest(bytes(32)), 1), Segment(state, 1)):
        log.add(segment)
    assert [line.segment for line in log.read()] == [Segment(state, 0), Segment(state, 1)]


def test_a_cancelled_job_ends_at_once(performer: Performer, base: Image):
    """Its requester pulls the leash; nothing that was killed half way counts."""

    async def cancelled() -> Performed:
        leash = Leash()
        spec = job(base, "echo ready; sleep 60", name="cancelled")
        return await performer.perform(spec, leash=leash, on_log=lambda stream, data: leash.cancel())

    done = asyncio.run(cancelled())
    assert (done.ended, done.units, done.is_payable) == (Ended.CANCELLED, (), False)


def test_what_is_not_there_is_refused(performer: Performer, base: Image, root: MakeRoot):
    """An input or an image that this machine doesn't have."""
    gone = msgspec.structs.replace(root(a_txt="1"), digest=bytes(32))
    done = run(performer, job(base, "true", inputs=(gone,)))
    assert done.ended is Ended.REFUSED
    assert "no blob" in done.why
    done = run(performer, job(Image("base", bytes([1] * 32), "nowhere"), "true"))
    assert done.ended is Ended.REFUSED
    assert "python" in done.why


def test_what_another_machine_needs(performer: Performer, store: BlobStore, base: Image, tmp_path: Path):
    """With the blobs that `needs` names, and nothing else of the provider's, a segment can be done again."""
    spec = job(base, STEPS, segments=3)
    done = run(performer, spec)
    elsewhere = BlobStore(tmp_path / "store")
    for digest, most_bytes in needs(spec, done.states[1], store).items():
        assert elsewhere.put(store.read(digest)) == digest
        assert elsewhere.size(digest) <= most_bytes
    again = asyncio.run(Performer(elsewhere, tmp_path).rerun(spec, done.states[1]))
    assert again == Segment(done.states[2], 1)


def test_the_base_is_described():
    """Twice the same, and another one with other packages; what we run around a program is part of it."""
    base = host_base()
    assert base.digest() == host_base().digest()
    assert base.digest() != msgspec.structs.replace(base, packages=()).digest()
    assert {"clusterai_job.py", "sitecustomize.py"} == set(inside())


def test_a_segment_may_take_its_share_of_the_time(base: Image):
    """Its provider the equal share; who runs it again four times that."""
    specs = [job(base, "true", segments=segments) for segments in (1, 2, 8, 60, 1000)]
    assert [pinned.share_s(spec) for spec in specs] == [60, 30, 8, 1, 1]
    assert [pinned.segment_s(spec) for spec in specs] == [240, 120, 30, 4, 1]
    whole = job(base, "true", check="unverified", segments=1)
    assert pinned.segment_s(whole) == 60


def test_a_segment_that_took_too_long_for_its_provider_can_be_run_again(performer: Performer, base: Image):
    """A slower machine finds the state all the same."""
    spec = job(base, "sleep 3; exit 75", segments=4, resources=msgspec.structs.replace(SMALL, time_s=8))
    done = run(performer, spec)
    assert (done.ended, done.units) == (Ended.LIMIT, ())
    again = asyncio.run(performer.rerun(spec, done.states[0]))
    assert again.units == 1


def test_setup_counts_towards_the_first_segment(performer: Performer, base: Image):
    """Both together take no more than one share."""
    spec = job(
        base,
        "sleep 3",
        segments=2,
        setup=("/bin/sh", "-c", "sleep 3"),
        resources=msgspec.structs.replace(SMALL, time_s=8),
    )
    done = run(performer, spec)
    assert (done.ended, done.units) == (Ended.LIMIT, ())
    assert "segment 1 took longer than its share of the time, 4 s" in done.why


def test_trees_go_out_and_come_back(store: BlobStore, tmp_path: Path):
    """Hidden files, links and caches stay behind and are named; what was a program is one again."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "run.sh").write_text("x")
    (source / "sub" / "run.sh").chmod(0o755)
    (source / "a.txt").write_text("a")
    (source / ".git").mkdir()
    (source / ".env").write_text("secret")
    (source / "__pycache__").mkdir()
    trees.lay_out(trees.take(source / "a.txt", store, "b.txt")[0], store, source / "earlier")
    (source / "earlier" / trees.MARK).touch()
    (source / "link").symlink_to("a.txt")
    tree, skipped = trees.take(source, store)
    assert [(it.path, it.form) for it in tree.entries] == [("a.txt", "file"), ("sub/run.sh", "program")]
    assert skipped == [".env", ".git/", "__pycache__/", "earlier/", "link"]
    trees.lay_out(tree, store, tmp_path / "target")
    assert (tmp_path / "target" / "sub" / "run.sh").stat().st_mode & 0o777 == 0o755
    one, _ = trees.take(source / "a.txt", store, "data/b.txt")
    assert [it.path for it in one.entries] == ["data/b.txt"]
