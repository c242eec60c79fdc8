"""What it costs to make a job provable, and whether an honest provider is ever accused.

    python bench/jobs.py [--draws 100] [--only honest,commit,share,plan]

1. honest: a Python job with numpy on one thread, which never seeds anything, and a WASM job; each is performed once and then
   drawn `--draws` times, the segment by chance, and done again by an auditor with a store of its own that got nothing but the
   blobs that `needs` names.
2. commit: MB/s to digest a work folder, in memory and into the store; the commitment to a thousand states; start of a segment's
   process in the sandbox beside the bare process.
3. share: what commitments add to a job's time: the same job in segments and in one, in turns.
4. plan: plans a second over 1,000 offers.
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median

import msgspec
from blake3 import blake3

from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.base import host_base
from clusterai.work.batch.adapters.needs import needs
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.outcome import Ended, Performed
from clusterai.work.batch.core.plan import Offer, plan
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.core.tree import EMPTY, Entry, listing
from clusterai.work.batch.spec import GIB, MIB, Image, JobArray, JobSpec, Resources, Root

NUMPY = b"""
import clusterai_job as job, numpy as np
x = np.load("x.npy") if job.SEGMENT > 1 else np.random.rand(200, 200)
for _ in job.share(40):
    x = np.tanh(x @ x.T / 50) + np.random.normal(size=x.shape) / 100
np.save("x.npy", x)
job.checkpoint()
"""
SEGMENTS = 8


def numpy_job(store: BlobStore) -> JobSpec:
    tree = listing([Entry("main.py", "file", store.put(NUMPY), len(NUMPY))])
    trees.keep(tree, store)
    return JobSpec(
        name="numpy",
        check="pinned",
        image=Image("base", host_base().digest(), "python"),
        argv=("python", "main.py"),
        inputs=(Root(tree.digest(), 1, tree.size),),
        resources=Resources(memory_bytes=512 * MIB, disk_bytes=64 * MIB, time_s=3600),
        segments=SEGMENTS,
        seed=1,
    )


def module_job(store: BlobStore) -> JobSpec:
    return JobSpec(
        name="sieve",
        check="wasm",
        image=Image("wasm", store.put(sample("sieve"))),
        argv=("63",),
        fuel=10**11,
        segments=64,
        resources=Resources(memory_bytes=64 * MIB, disk_bytes=16 * MIB, time_s=600),
    )


async def honest(folder: Path, draws: int) -> None:
    random = Random(7)
    store = BlobStore(folder / "provider")
    performer = Performer(store, folder / "provider-runs")
    for spec in (numpy_job(store), module_job(store)):
        done = await performer.perform(spec, self_checks=0)
        assert done.ok, done.why
        claim = done.commitment()
        theirs = BlobStore(folder / f"auditor-{spec.name}")
        auditor = Performer(theirs, folder / f"auditor-{spec.name}-runs")
        found: dict[str, int] = {}
        took: list[float] = []
        for _ in range(draws):
            j = random.randint(1, claim.segments)
            for digest in needs(spec, done.states[j - 1], store):
                if digest not in theirs:
                    theirs.put(store.read(digest))
            begin = time.perf_counter()
            checked = await auditor.check(
                spec, claim.root, claim.segments, claim.open(0), claim.open(j - 1), claim.open(j)
            )
            took.append(time.perf_counter() - begin)
            found[checked.verdict] = found.get(checked.verdict, 0) + 1
        print(
            f"{spec.name:6} {claim.segments} segments, {done.wall_ms / 1000:.2f} s in all; {draws} draws: {found}; "
            f"an audit takes {median(took):.2f} s (measured)"
        )


async def commit(folder: Path) -> None:
    store = BlobStore(folder / "commit")
    big = folder / "big"
    big.mkdir()
    for at in range(16):
        (big / f"{at}.bin").write_bytes(Random(at).randbytes(16 * MIB))
    pieces = [path.read_bytes() for path in sorted(big.iterdir())]
    begin = time.process_time()
    for piece in pieces:
        blake3(piece).digest()
    took = time.process_time() - begin
    print(
        f"BLAKE3 of {sum(map(len, pieces)) // MIB} MiB in memory: {sum(map(len, pieces)) / 1e6 / took:.0f} MB/s of a core"
    )
    for how in ("new", "known"):
        begin, began = time.perf_counter(), time.process_time()
        tree, _ = trees.take(big, store)
        took, busy = time.perf_counter() - begin, time.process_time() - began
        print(
            f"folder of {tree.size // MIB} MiB, {how}, into the store: {tree.size / 1e6 / took:.0f} MB/s with fsync, "
            f"{tree.size / 1e6 / busy:.0f} MB/s of a core"
        )
    states = tuple(Digest(keccak(at.to_bytes(4))) for at in range(1001))
    begin = time.process_time()
    Performed(ended=Ended.FINISHED, states=states, units=(1,) * 1000, output=EMPTY, why="").commitment().open(
        7
    )
    print(
        f"commitment to 1,000 states, and an opening: {(time.process_time() - begin) * 1000:.1f} ms of a core"
    )
    begin = time.perf_counter()
    for _ in range(100):
        tree.digest()
    print(f"its listing's digest: {(time.perf_counter() - begin) * 10:.3f} ms")
    performer = Performer(store, folder / "commit-runs")
    empty = JobSpec(
        name="empty",
        check="pinned",
        image=Image("base", host_base().digest(), "python"),
        argv=("/bin/true",),
        resources=Resources(memory_bytes=64 * MIB, disk_bytes=16 * MIB, time_s=60),
    )
    state = await performer.start(empty)
    inside: list[float] = []
    bare: list[float] = []
    for _ in range(20):
        begin = time.perf_counter()
        await performer.rerun(empty, state)
        inside.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        subprocess.run(["/bin/true"], check=True)  # noqa: ASYNC221  nothing else runs
        bare.append(time.perf_counter() - begin)
    print(
        f"an empty segment, state and all: {median(inside) * 1000:.0f} ms; the bare process: {median(bare) * 1000:.1f} ms"
    )


async def share(folder: Path) -> None:
    """Three times in turns, the least of each: other work on the machine only ever adds."""
    for make, cut in ((numpy_job, SEGMENTS), (module_job, 64)):
        took: dict[int, list[float]] = {1: [], cut: []}
        for turn in range(3):
            for segments in took:
                place = folder / f"{cut}-{turn}-{segments}"
                store = BlobStore(place / "store")
                spec = make(store)
                steps = cut // segments if spec.check == "wasm" else 1
                spec = msgspec.structs.replace(spec, segments=segments, steps=steps)
                begin = time.perf_counter()
                done = await Performer(store, place / "runs").perform(spec, self_checks=0)
                took[segments].append(time.perf_counter() - begin)
                assert done.ok, done.why
        whole, parts = min(took[1]), min(took[cut])
        print(
            f"{spec.name:6} in one segment {whole:.2f} s, in {cut} {parts:.2f} s: {(parts - whole) / cut * 1000:.0f} ms "  # pyright: ignore[reportPossiblyUnboundVariable]
            f"a segment, {(parts - whole) / parts:.1%} of its time (measured)"
        )


def plans() -> None:
    base = host_base().digest()
    offers = [
        Offer(
            provider=f"0x{at:040x}",
            bases=(("python", base),),
            cpu_milli=1000 * (at % 64),
            memory_bytes=GIB * (at % 32),
            disk_bytes=64 * GIB,
            stake_wei=at * 10**9,
            valid_in_a_row=at,
        )
        for at in range(1000)
    ]
    spec = JobSpec(name="p", check="pinned", image=Image("base", base, "python"), argv=("true",), segments=20)
    begin = time.perf_counter()
    for _ in range(20):
        found = plan(JobArray(spec), Wishes(), offers)
    took = (time.perf_counter() - begin) / 20
    print(f"a plan over 1,000 offers, {len(found.candidates)} able: {took * 1000:.1f} ms")  # pyright: ignore[reportPossiblyUnboundVariable]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", default="honest,commit,share,plan")
    asked = parser.parse_args()
    wanted = set(asked.only.split(","))
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as name:
        if "honest" in wanted:
            asyncio.run(honest(Path(name), asked.draws))
        if "commit" in wanted:
            asyncio.run(commit(Path(name)))
        if "share" in wanted:
            asyncio.run(share(Path(name)))
        if "plan" in wanted:
            plans()


if __name__ == "__main__":
    main()
