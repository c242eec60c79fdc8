"""What there is for graphics cards, on a machine with NVIDIA's: telemetry, a rental's walls around a real card, the matrix challenge.

python -m bench.gpu [--quick]

Run as root, as a node that lends cards is; the matrix challenge needs torch with CUDA in the same Python. Of each part that can't be run the reason
is printed. Without a card the program says so and ends with 3. There is no sentinel on cards: a rental's time is proven on its cores alone.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from clusterai.audit.core import products
from clusterai.node.adapters.torchproduct import NoGpu, gpu_product
from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, CannotSandbox, Cell, Limits, NativeRunner, RootFs, Task, host_python
from clusterai.work.cluster.adapters import cards
from clusterai.work.cluster.adapters.cards import Cards, NoCards
from clusterai.work.cluster.core.cards import Card, telling

NONE = 3
FIRST_S = 300.0
INSIDE = """
import ctypes, json, os, sys

def driver(name, *words):
    return getattr(cuda, name)(*words)

told = {"dev": sorted(it for it in os.listdir("/dev") if it.startswith("nvidia")), "cuda_visible_devices": os.environ["CUDA_VISIBLE_DEVICES"]}
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    told["cuInit"] = driver("cuInit", 0)
    count, device, context, place = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    told["cuDeviceGetCount"] = [driver("cuDeviceGetCount", ctypes.byref(count)), count.value]
    if count.value:
        name = ctypes.create_string_buffer(100)
        driver("cuDeviceGet", ctypes.byref(device), 0)
        driver("cuDeviceGetName", name, 100, device)
        told["name"] = name.value.decode()
        told["cuCtxCreate"] = driver("cuCtxCreate_v2", ctypes.byref(context), 0, device)
        told["cuMemAlloc"] = driver("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(1 << 28))
        told["cuMemsetD8"] = driver("cuMemsetD8_v2", place, ctypes.c_ubyte(7), ctypes.c_size_t(1 << 28))
        told["cuCtxSynchronize"] = driver("cuCtxSynchronize")
except (OSError, AttributeError) as error:
    told["failed"] = str(error)
print(json.dumps(told), flush=True)
sys.stdin.read()
"""


def asked(times: int) -> dict[str, Any]:
    """How long the driver's program takes for what a watched rental asks of it every five seconds."""
    took: list[float] = []
    for _ in range(times):
        began_s = time.perf_counter()
        cards.found()
        took.append(time.perf_counter() - began_s)
    return {"median_ms": round(1000 * statistics.median(took)), "most_ms": round(1000 * max(took))}


async def walled(count: int, folder: Path) -> dict[str, Any]:
    """CUDA in a rental's sandbox with so many of the cards: it has to see these and no others."""
    try:
        taken = await asyncio.to_thread(Cards((), count).take, count)
    except NoCards as error:
        return {"not_run": error.why}
    try:
        root = taken.root(host_python())
        runner = await asyncio.to_thread(NativeRunner, BlobStore(folder / "store"), folder, {"python": root})
        limits = Limits(memory_bytes=4 << 30, processes=256, open_files=1024)
        argv = ("/usr/bin/env", "python3", "-I", "-S", "-c", INSIDE)
        log: list[bytes] = []
        cell = await Cell.open(
            runner, Task(image=RootFs("python"), argv=argv, limits=limits), root, on_log=log.append
        )
        try:
            async with asyncio.timeout(FIRST_S):
                line = await cell.hear()
            if not line:
                return {"not_run": b"".join(log).decode(errors="replace")[-500:]}
            return {"rented": count, "second_wall": cell.group.is_walled, **json.loads(line)}
        finally:
            await cell.close()
    except (CannotSandbox, TimeoutError, OSError, ValueError) as error:
        return {"not_run": f"{type(error).__name__}: {error}"[:500]}
    finally:
        left = await asyncio.to_thread(taken.give_back)
        if left:
            print(f"left behind: {left}", file=sys.stderr)


def challenged(gpu: int, size: int, links: int) -> dict[str, Any]:
    """A chain of products on one card, with what a verifier of it does; the same chain's first links on the cores beside it."""
    try:
        product = gpu_product(gpu)
    except NoGpu as error:
        return {"not_run": str(error)}
    challenge = products.Challenge(Digest(os.urandom(32)), size, links)
    products.answer(products.Challenge(Digest(bytes(32)), size, 2), product)
    kept: dict[int, products.Opened] = {}
    began_s = time.perf_counter()
    found = products.answer(
        challenge, product, lambda link, x, y: kept.__setitem__(link, products.opened(link, x, y))
    )
    took_s = time.perf_counter() - began_s
    beacon = Digest(os.urandom(32))
    began_s = time.perf_counter()
    drawn = products.draw(challenge, found, beacon, 2)
    wrong = [
        why
        for it in drawn
        if (why := products.differs(challenge, found, kept.get(it - 1), kept[it], beacon)) is not None
    ]
    verified_s = time.perf_counter() - began_s
    cores = products.Challenge(challenge.seed, size, min(4, links))
    began_s = time.perf_counter()
    theirs = products.answer(cores)
    cores_s = time.perf_counter() - began_s
    is_same = theirs == found[: cores.links]
    x = np.ones((size, size), np.int8)
    began_s = time.perf_counter()
    product(x, x)
    return {
        "size": size,
        "links": links,
        "mops_per_s": round(challenge.operations / took_s / 1e6),
        "cores_mops_per_s": round(cores.operations / cores_s / 1e6),
        "one_product_ms": round(1000 * (time.perf_counter() - began_s), 2),
        "verifier_s": round(verified_s, 3),
        "wrong": wrong,
        "same_as_on_the_cores": is_same,
    }


def measure(there: tuple[Card, ...], quick: bool) -> dict[str, Any]:
    size, links = (512, 8) if quick else (4096, 32)
    with tempfile.TemporaryDirectory(prefix="clusterai-gpu-") as folder:
        counts = dict.fromkeys((1, len(there)))
        walls = [asyncio.run(walled(count, Path(folder) / str(count))) for count in counts]
    return {
        "cards": [telling(it) for it in there],
        "driver": there[0].driver,
        "specification": "CDI" if cards.spec() is not None else "none: the system's own libraries",
        "asking_the_driver": asked(3 if quick else 20),
        "in_a_rentals_walls": walls,
        "matrix_challenge": [challenged(at, size, links) for at in range(len(there))],
        "sentinel_on_cards": "there is none: a rental's time is proven on its cores alone",
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small matrices, to see that it runs")
    quick = parser.parse_args().quick
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        there = cards.found()
    except NoCards as error:
        print(f"no NVIDIA card can be used on this machine: {error.why}", file=sys.stderr)
        return NONE
    if not there:
        print("this machine has no NVIDIA card", file=sys.stderr)
        return NONE
    print(json.dumps(measure(there, quick), indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
