"""Roots out of tars: shown as they are, read-only, and unpacked without a way out."""

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from clusterai.sandbox import BlobStore, Outcome, Reason, RootFs, Task
from clusterai.sandbox.adapters.roots import BadRoot, unpack
from tests.rooms.sandbox.boxes import native, store


def tar(*members: tuple[str, str, bytes]) -> bytes:
    """(kind, name, content or target) of each member."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for kind, name, content in members:
            info = tarfile.TarInfo(name)
            info.type = {
                "file": tarfile.REGTYPE,
                "dir": tarfile.DIRTYPE,
                "link": tarfile.SYMTYPE,
                "hard": tarfile.LNKTYPE,
            }.get(kind, tarfile.CHRTYPE)
            info.mode = 0o6755
            if kind == "file":
                info.size = len(content)
            else:
                info.linkname = content.decode()
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def shell() -> list[tuple[str, str, bytes]]:
    """A root with nothing but dash and what it is linked to."""
    interpreter = next(Path("/lib64").glob("ld-linux*"), None) or next(Path("/lib").glob("ld-linux*"))
    libc = next(Path("/lib").glob("*-linux-gnu/libc.so.6"))
    return [
        ("dir", "bin", b""),
        ("file", "bin/dash", Path("/bin/dash").read_bytes()),
        ("link", "bin/sh", b"/bin/dash"),
        ("file", str(interpreter)[1:], interpreter.read_bytes()),
        ("file", str(libc)[1:], libc.read_bytes()),
        ("file", "etc/motto", b"of the tar\n"),
    ]


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
    assert sorted(bind.dest for bind in root.binds) == ["/bin", "/etc"]


def test_what_is_no_tar_is_refused() -> None:
    """The tenant reads that its root is none."""
    digest = store().put(b"noise" * 1000)
    outcome = asyncio.run(native().run(Task(image=RootFs(f"blake3:{digest.hex()}"), argv=("/bin/sh",))))
    assert outcome.reason is Reason.REFUSED
    assert "no root file system" in outcome.why
