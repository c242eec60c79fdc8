"""A network is not begun on a full disk, and what failed on one says so."""

import errno
from pathlib import Path

import pytest

from clusterai.cli.failure import Failure
from clusterai.cli.local import room


def fill(monkeypatch: pytest.MonkeyPatch, left_bytes: int) -> None:
    def free_bytes(root: Path) -> int:
        return left_bytes

    monkeypatch.setattr(room, "free_bytes", free_bytes)


def ended(root: Path, how: Exception) -> None:
    with room.needed(root):
        raise how


def test_a_network_is_not_begun_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error names the disk, what is free, what is needed and what to do, and nothing was tried."""
    fill(monkeypatch, room.LEAST_BYTES - 1)
    told = r"the disk of .* is full: 127 MiB are free, and a network needs 128"
    with pytest.raises(Failure, match=told) as failure:
        ended(tmp_path, AssertionError("it was tried"))
    assert "make room" in failure.value.next


def test_what_failed_on_a_disk_that_got_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A daemon's last words there, or an errno, are worth less than the cause; other failures stay what they are."""
    with pytest.raises(Failure, match="chain doesn't start"):
        ended(tmp_path, Failure("chain doesn't start"))
    with pytest.raises(PermissionError):
        ended(tmp_path, PermissionError(errno.EACCES, "no"))
    with pytest.raises(Failure, match="is full"):
        ended(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    doing = room.needed(tmp_path)
    doing.__enter__()
    fill(monkeypatch, 0)
    died = Failure("chain doesn't start")
    with pytest.raises(Failure, match="is full"):
        doing.__exit__(Failure, died, None)


def test_a_folder_that_is_not_there_lies_on_its_parents_disk(tmp_path: Path):
    """Before the first `up`."""
    assert room.free_bytes(tmp_path / "not" / "yet") > 0
