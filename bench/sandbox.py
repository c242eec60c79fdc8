"""The sandbox: from call to outcome beside a plain process and podman, and what commitments cost a job.

    python bench/sandbox.py [--rounds 15]

1. Median time of a program that does nothing, from the call to its outcome: a plain process, the native walls, a WASM module in
   this process and behind the walls, and, where they are installed, podman + runc hardened. In turn, in one run: take the ratios.
2. Segments: a WASM job with a digest after every step beside the same job without, and how fast states are digested.
3. Blobs: written and read, verified, in the clear and encrypted under a lease's key, beside gocryptfs where it is installed.
"""

# ruff: noqa: E402 - run from anywhere
import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path[:0] = [str(Path(__file__).parents[1])]

from blake3 import blake3

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, LeaseStore, Limits, NativeRunner, RootFs, Task, Wasm
from clusterai.sandbox.adapters.wasm import Segmented, sample, wat
from clusterai.sandbox.adapters.wasmbox import WasmRunner
from tests.rooms.sandbox.tars import shell, tar

MIB = 1 << 20
HARDENED = [
    *(
        "--runtime",
        "runc",
        "--network",
        "none",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop",
        "all",
    ),
    *(
        "--security-opt",
        "no-new-privileges",
        "--user",
        "1000:1000",
        "--pids-limit",
        "64",
        "--memory",
        "256m",
        "--cpus",
        "1",
    ),
    *("--ulimit", "nofile=256:256", "--ulimit", "nproc=64:64", "--pull", "never", "--log-driver", "none"),
]

Act = Callable[[], Awaitable[object]]


async def in_turn(acts: dict[str, Act], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, one of each per round, after one that isn't counted."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for round_ in range(rounds + 1):
        for name, act in acts.items():
            began = time.perf_counter()
            await act()
            if round_:
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(found) for name, found in times.items()}


async def start_up(folder: Path, rounds: int) -> None:
    store = BlobStore(folder / "store")
    native = NativeRunner(store, folder / "native")
    box = WasmRunner(store, folder / "wasm")
    nothing = wat('(module (memory (export "memory") 1) (func (export "_start")))')
    module = Task(image=Wasm(store.put(nothing)), limits=Limits(memory_bytes=MIB * 16))
    true = Task(image=RootFs("python"), argv=("/bin/true",))
    python = Task(image=RootFs("python"), argv=("python3", "-I", "-S", "-c", "pass"))

    async def plain(*command: str) -> None:
        await (await asyncio.create_subprocess_exec(*command)).wait()

    async def held(task: Task) -> None:
        outcome = await native.run(task)
        assert outcome.ok, outcome

    async def engine() -> None:
        Segmented(nothing, module).execute()

    async def boxed() -> None:
        outcome = await box.run(module)
        assert outcome.ok, outcome

    acts: dict[str, Act] = {
        "a plain process: true": lambda: plain("/bin/true"),
        f"walls: true ({native.name})": lambda: held(true),
        "a plain process: python -c pass": lambda: plain(sys.executable, "-I", "-S", "-c", "pass"),
        "walls: python -c pass": lambda: held(python),
        "WASM, compiled and run in this process": engine,
        "WASM in a process behind the walls": boxed,
    }
    with contextlib.ExitStack() as stack:
        if (image := stack.enter_context(podman_image(folder))) is not None:
            acts["podman + runc, hardened: true"] = lambda: plain(*image)
        else:
            print("podman is not installed: left out")
        medians = await in_turn(acts, rounds)
    base = medians["a plain process: true"]
    for name, found in medians.items():
        print(f"{name:66}{found:8.1f} ms {found / base:7.1f} x")


@contextlib.contextmanager
def podman_image(folder: Path) -> Generator[list[str] | None]:
    """The command that runs a shell's `:` in a container, in a store of its own."""
    found = shutil.which("podman")
    if found is None or os.geteuid() != 0:
        yield None
        return
    base = [found, "--root", str(folder / "podman"), "--runroot", str(folder / "podman-run")]
    (folder / "root.tar").write_bytes(tar(*shell()))
    made = subprocess.run(
        [*base, "import", "-q", str(folder / "root.tar"), "bench"], capture_output=True, check=False
    )
    try:
        yield (
            [*base, "run", "--rm", *HARDENED, "bench", "/bin/sh", "-c", ":"] if made.returncode == 0 else None
        )
    finally:
        subprocess.run([*base, "rmi", "--all", "--force"], capture_output=True, check=False)
        # Podman leaves its empty control groups behind.
        for left in sorted(Path("/sys/fs/cgroup").glob("*/libpod_parent/**/"), reverse=True):
            with contextlib.suppress(OSError):
                left.rmdir()


def commitments(blocks: int = 40) -> None:
    module = sample()
    task = Task(
        image=Wasm(Digest(blake3(module).digest())),
        argv=("sieve", str(blocks)),
        limits=Limits(memory_bytes=MIB * 16),
    )
    job = Segmented(module, task)
    trace = job.run(1)
    whole: list[float] = []
    cut: list[float] = []
    for _ in range(5):
        began = time.process_time()
        job.execute()
        whole.append(time.process_time() - began)
        began = time.process_time()
        job.run(1)
        cut.append(time.process_time() - began)
    each_ms = (statistics.median(cut) - statistics.median(whole)) / len(trace.digests) * 1000
    fuel = trace.result.fuel / statistics.median(whole) / 1e6
    print(f"\nWASM: {fuel:.0f} million fuel a second")
    print(
        f"a digest a step ({statistics.median(whole) / blocks * 1000:.2f} ms of work): + {each_ms:.2f} ms each"
    )
    print(
        f"at 20 segments a job of an hour spends {20 * each_ms / 3_600_000:.1e} of its time on commitments, for 192 KiB of state"
    )
    for size in (16, 256):
        wide = wat(f"""(module (memory (export "memory") {size * 16}) (func (export "clusterai_step") (param i64) (result i32)
          (memory.fill (i32.const 0) (i32.const 7) (i32.const {size * MIB - 1})) (i32.const 0)))""")
        big = Segmented(wide, Task(image=Wasm(Digest(bytes(32))), limits=Limits(memory_bytes=size * MIB)))
        first = big.start()
        began = time.process_time()
        big.rerun(first, 1)
        once = time.process_time() - began
        began = time.process_time()
        big.trace(first, 11, every=1)
        rate = 10 * size / (time.process_time() - began - once)
        print(
            f"states of {size} MiB, all of it changed: made and digested at {rate:.0f} MiB a second of a core"
        )


def blobs(folder: Path, size_mib: int = 256) -> None:
    data = os.urandom(size_mib * MIB)
    print()
    timed("in the clear", BlobStore(folder / "plain"), data)
    timed("encrypted", LeaseStore(folder / "lease"), data)
    if shutil.which("gocryptfs") is None or os.geteuid() != 0:
        print("gocryptfs is not installed: left out")
        return
    cipher, clear, password = folder / "cipher", folder / "clear", folder / "password"
    cipher.mkdir()
    clear.mkdir()
    password.write_text("bench")
    quiet = ["gocryptfs", "-q", "-nosyslog", "-passfile", str(password)]
    # It stays behind as a daemon, so it must not hold a pipe of ours.
    subprocess.run([*quiet, "-init", "-scryptn", "10", str(cipher)], stdout=subprocess.DEVNULL, check=True)
    subprocess.run([*quiet, str(cipher), str(clear)], stdout=subprocess.DEVNULL, check=True)
    try:
        timed("on gocryptfs", BlobStore(clear / "store"), data)
    finally:
        subprocess.run(["umount", str(clear)], check=True)


def timed(name: str, store: BlobStore, data: bytes) -> None:
    began = time.perf_counter()
    digest = store.put(data)
    wrote = time.perf_counter()
    store.verify(digest)
    read = time.perf_counter()
    rates = (len(data) / MIB / (wrote - began), len(data) / MIB / (read - wrote))
    print(f"blobs {name:14}{rates[0]:6.0f} MiB/s written, {rates[1]:6.0f} read")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with TemporaryDirectory(prefix="clusterai-bench-") as place:
        asyncio.run(start_up(Path(place), rounds))
        commitments()
        blobs(Path(place))


main()
