"""A lease's data at rest: nothing in the clear, nothing that can be exchanged, and nothing to read once the lease ended."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol.ids import Digest
from clusterai.sandbox import Damaged, LeaseStore, Limits, NoSuchBlob, RootFs, StoreFull, Task, Wasm
from clusterai.sandbox.adapters.store import CHUNK
from clusterai.sandbox.adapters.volume import memory_bytes, swap_is_encrypted
from clusterai.sandbox.adapters.wasm import sample
from clusterai.sandbox.adapters.wasmbox import WasmRunner
from tests.rooms.sandbox.boxes import native

PLAIN = b"the patient's name is "


def on_disk(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])
def test_what_goes_in_comes_out(tmp_path: Path, size: int) -> None:
    """Whatever its size, a blob has its plain digest and size, and its bytes come back."""
    store = LeaseStore(tmp_path / "lease")
    data = (PLAIN * (size // len(PLAIN) + 1))[:size]
    digest = store.put(data)
    assert digest == blake3(data).digest()
    assert store.size(digest) == size
    assert store.read(digest) == data == b"".join(store.stream(digest))


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_how_it_came_in_does_not_matter(chunks: list[bytes]) -> None:
    """The pieces of a stream leave no trace in what comes out."""
    with TemporaryDirectory() as place:
        store = LeaseStore(Path(place) / "lease")
        assert store.read(store.write(chunks)) == b"".join(chunks)


def test_the_disk_sees_noise(tmp_path: Path) -> None:
    """Neither content nor its digest, nor that two leases hold the same, can be read off the disk."""
    stores = [LeaseStore(tmp_path / name) for name in ("one", "two")]
    digests = [store.put(PLAIN * 1000) for store in stores]
    seen = [on_disk(store.root) for store in stores]
    assert digests[0] == digests[1]
    assert PLAIN not in seen[0] + seen[1]
    assert seen[0] != seen[1]
    names = [str(path) for path in tmp_path.rglob("*")]
    assert digests[0].hex()[2:] not in "".join(names)


def test_every_change_is_noticed(tmp_path: Path) -> None:
    """A flipped bit, a piece cut off, repeated or exchanged, and another blob in its place: damaged, and gone."""
    store = LeaseStore(tmp_path / "lease")
    data = os.urandom(3 * CHUNK)
    head, piece = LeaseStore.head_bytes, CHUNK + LeaseStore.extra_bytes
    other = store.path(store.put(b"other")).read_bytes()
    changes: list[Callable[[bytes], bytes]] = [
        lambda raw: raw[:-1],
        lambda raw: raw[: head + 2 * piece],
        lambda raw: raw[:head],
        lambda _: b"",
        lambda raw: raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:],
        lambda raw: raw + raw[-piece:],
        lambda raw: (
            raw[:head]
            + raw[head + piece : head + 2 * piece]
            + raw[head : head + piece]
            + raw[head + 2 * piece :]
        ),
        lambda _: other,
    ]
    for change in changes:
        digest = store.put(data)
        path = store.path(digest)
        raw = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(change(raw))
        with pytest.raises(Damaged):
            store.read(digest)
        with pytest.raises(NoSuchBlob):
            store.read(digest)


def test_the_key_dies_with_the_lease(tmp_path: Path) -> None:
    """After its end the lease reads nothing, not even from a copy that somebody made of its disk."""
    store = LeaseStore(tmp_path / "lease")
    digest = store.put(PLAIN)
    path, copy = store.path(digest), store.path(digest).read_bytes()
    store.end()
    assert not path.exists()
    path.parent.mkdir(parents=True)
    path.write_bytes(copy)
    for ask in (store.read, store.size, store.verify, store.path):
        with pytest.raises(NoSuchBlob):
            ask(digest)
    with pytest.raises(NoSuchBlob):
        store.put(b"more")
    assert LeaseStore(tmp_path / "lease").used_bytes == 0
    assert not path.exists()


def test_its_quota_holds(tmp_path: Path) -> None:
    """What is counted is what lies on the disk."""
    store = LeaseStore(tmp_path / "lease", quota=1000)
    store.put(bytes(500))
    with pytest.raises(StoreFull):
        store.put(os.urandom(500))


def test_a_task_works_on_a_lease_s_own_data(tmp_path: Path) -> None:
    """Inputs and outputs of a native and of a WASM task are in the lease's store, and never in the clear on disk."""
    store = LeaseStore(tmp_path / "lease")
    digest = store.put(PLAIN + b"Ada")
    script = "cat in/name > out/copy; cat in/name"
    task = Task(image=RootFs("python"), argv=("sh", "-c", script), inputs={"name": digest})
    seen: list[bytes] = []

    async def test() -> Digest:
        def log(_: str, data: bytes) -> None:
            seen.append(data + on_disk(native().folder))

        outcome = await native().run(task, store=store, on_log=log)
        assert outcome.ok, outcome
        return outcome.outputs[0].digest

    copied = asyncio.run(test())
    assert copied == digest
    assert seen == [PLAIN + b"Ada"]
    assert PLAIN not in on_disk(store.root)
    assert list(Path("/dev/shm").glob(f"clusterai-{os.getpid()}-*")) == []
    runner = WasmRunner(store, tmp_path / "wasm")
    module = Task(image=Wasm(store.put(sample())), argv=("sieve", "1"), limits=Limits(memory_bytes=16 << 20))
    outcome = asyncio.run(runner.run(module, store=store))
    assert store.read(outcome.outputs[0].digest) == b"6542\n"


@pytest.mark.parametrize(
    ("kind", "holds"), [("tmpfs", True), ("ramfs", True), ("ext4", False), ("overlay", False)]
)
def test_only_a_memory_file_system_is_memory(kind: str, holds: bool, tmp_path: Path) -> None:
    """A folder on a disk in its place holds nothing that may be laid out there."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"proc /proc proc rw 0 0\nwhat {tmp_path} {kind} rw 0 0\n")
    assert bool(memory_bytes(tmp_path, mounts)) is holds
    assert memory_bytes(tmp_path / "elsewhere", mounts) == memory_bytes(tmp_path, tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("table", "encrypted"),
    [
        ("", None),
        ("/dev/sda2 partition 1 0 -2\n", False),
        ("/dev/dm-1 partition 1 0 -2\n/dev/zram0 partition 1 0 -2\n", True),
    ],
)
def test_swap_in_the_clear_is_noticed(table: str, encrypted: bool | None, tmp_path: Path) -> None:
    """Memory that may reach a disk unencrypted is told."""
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n" + table)
    assert swap_is_encrypted(swaps) is encrypted
    assert swap_is_encrypted(tmp_path / "none") is None
