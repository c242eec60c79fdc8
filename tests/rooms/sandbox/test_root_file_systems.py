"""Roots out of tars: shown as they are, read-only, and unpacked without a way out."""

import asyncio
from pathlib import Path

import pytest

from clusterai.sandbox import BlobStore, Outcome, Reason, RootFs, Task
from clusterai.sandbox.adapters.roots import BadRoot, unpack
from tests.rooms.sandbox.boxes import native, store
from tests.rooms.sandbox.tars import shell, tar


def test_a_tar_becomes_a_root() -> None:
    """A task sees the tar's files and nothing of the host's, can't change them, and has no setuid file."""
    digest = store().put(tar(*shell()))
    script = "while read l; do echo $l; done < /etc/motto; echo x > /etc/motto; test -e /usr || echo alone; test -u /bin/sh || echo plain"
    task = Task(image=RootFs(f"blake3:{digest.hex()}"), argv=("/bin/sh", "-c", script))

    async def twice() -> list[Outcome]:
        return [await native().run(task), await native().run(task)]

    for outcome in asyncio.run(twice()):
        assert outcome.stdout == b"of the tar\nalone\nplain\n", outcome
        assert b"Read-only" in outcome.stderr or b"ermission" in outcome.stderr


@pytest.mark.parametrize(
    "members",
    [
        [("file", "../outside", b"x")],
        [("file", "a/../../outside", b"x")],
        [("link", "a", b"/tmp"), ("file", "a/outside", b"x")],
        [("link", "a", b".."), ("file", "a/outside", b"x")],
        [("link", "a", b"/etc/passwd"), ("hard", "b", b"a/x")],
        [("hard", "b", b"../../etc/passwd")],
        [("link", "a", b"outside"), ("file", "a", b"x")],
        [("file", "a", b"x"), ("file", "a/b", b"x")],
    ],
)
def test_a_tar_that_leads_out_is_refused(members: list[tuple[str, str, bytes]], tmp_path: Path) -> None:
    """Names with .., writes through links and hard links to elsewhere make nothing, in the root or beside it."""
    blobs = BlobStore(tmp_path / "store")
    with pytest.raises(BadRoot):
        unpack(blobs, blobs.put(tar(*members)), tmp_path / "roots")
    assert list((tmp_path / "roots").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_devices_are_left_out(tmp_path: Path) -> None:
    """A device in a tar is nothing in the root."""
    blobs = BlobStore(tmp_path / "store")
    root = unpack(blobs, blobs.put(tar(("device", "mem", b""), ("file", "bin/x", b"y"))), tmp_path / "roots")
    assert sorted(bind.dest for bind in root.binds) == ["/bin"]


def test_what_is_no_tar_is_refused() -> None:
    """The tenant reads that its root is none."""
    digest = store().put(b"noise" * 1000)
    outcome = asyncio.run(native().run(Task(image=RootFs(f"blake3:{digest.hex()}"), argv=("/bin/sh",))))
    assert outcome.reason is Reason.REFUSED
    assert "no root file system" in outcome.why
