"""What a rented machine's volume is, and that everybody concerned is told."""

import asyncio
import os
from pathlib import Path

import pytest

from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters import disk
from clusterai.sandbox.adapters.disk import NoDisk
from clusterai.work.cluster.adapters.stay import Stay, StaySettings
from clusterai.work.cluster.spec import ClusterSpec
from tests.rooms.cluster.renting import environment


async def volume(folder: Path) -> tuple[str, str, int]:
    """The log's first line, the file system that a tenant finds, and how many processes stand beside it."""
    settings = StaySettings(ray=environment(), cores=(0,))
    spec = ClusterSpec(memory_bytes=512 << 20, disk_bytes=256 << 20)
    stay = await Stay.open(Digest(os.urandom(32)), 0, spec, folder, settings)
    try:
        mounts = Path("/proc", str(stay.processes()[-1]), "mounts").read_text().splitlines()  # noqa: ASYNC240
        kind = [it.split()[2] for it in mounts if it.split()[1] == "/job"][-1]
        return stay.log(0)[1].decode().splitlines()[0], kind, len(stay.helpers())
    finally:
        await stay.close()


def test_a_stays_volume_is_an_encrypted_disk(tmp_path: Path):
    """Of the size that was rented, and the tenant's log says so; nothing of it is left after the stay."""
    said, kind, helpers = asyncio.run(volume(tmp_path))
    assert said == "clusterai: /job is a disk of 0.25 GiB, encrypted under a key in memory"
    assert kind == "ext4"
    assert helpers >= 4
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_disk_the_volume_is_memory_and_the_tenant_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The stay opens all the same, and its log says what is missing."""
    missing = NoDisk("gocryptfs isn't installed", "apt-get install gocryptfs")
    monkeypatch.setattr(disk, "obstacle", lambda: missing)
    said, kind, _ = asyncio.run(volume(tmp_path))
    assert said == "clusterai: /job is memory, not a disk: gocryptfs isn't installed"
    assert kind == "tmpfs"


def test_one_place_on_two_nodes_of_a_machine_has_two_interfaces(tmp_path: Path):
    """A place moves to another node there, while the first one still has it."""

    async def main() -> None:
        lease, spec = Digest(os.urandom(32)), ClusterSpec(memory_bytes=512 << 20, disk_bytes=256 << 20)
        settings = StaySettings(ray=environment(), cores=(0,))
        one = await Stay.open(lease, 1, spec, tmp_path / "one", settings)
        try:
            two = await Stay.open(lease, 1, spec, tmp_path / "two", settings)
            try:
                assert one.interface != two.interface
                assert max(len(one.interface), len(two.interface)) <= 15
            finally:
                await two.close()
        finally:
            await one.close()

    asyncio.run(main())
