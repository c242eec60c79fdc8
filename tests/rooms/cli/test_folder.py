"""The data folder: one `up` at a time, and a state that can't be stale."""

import stat
from pathlib import Path

import pytest

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import DataFolder, UpState, tail, write_atomically
from clusterai.cli.local.ports import Ports, check


def state(pid: int = 1) -> UpState:
    return UpState(pid, "ready", 0.0, "http://127.0.0.1:1", "http://127.0.0.1:3", "tiny", ())


def test_only_one_holds_a_folder(tmp_path: Path):
    """The second is refused and told who holds it; when the first lets go, it may."""
    first, second = DataFolder(tmp_path), DataFolder(tmp_path)
    first.hold()
    first.write_state(state(pid=4711))
    with pytest.raises(Failure, match="already runs") as failure:
        second.hold()
    assert failure.value.code == Exit.BUSY
    assert "4711" in failure.value.why
    first.let_go()
    second.hold()
    second.let_go()


def test_what_ran_before_a_crash_does_not_run(tmp_path: Path):
    """`up.json` of an `up` that died counts for nothing: its lock died with it."""
    folder = DataFolder(tmp_path)
    folder.hold()
    folder.write_state(state())
    assert DataFolder(tmp_path).running().model == "tiny"
    crashed = folder.state()
    folder.let_go()
    assert crashed is not None
    folder.write_state(crashed)
    with pytest.raises(Failure, match="no network runs"):
        DataFolder(tmp_path).running()


def test_files_of_secrets_are_the_owners_alone(tmp_path: Path):
    """Written aside with mode 0600 and renamed."""
    path = tmp_path / "secret"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path):
    """Enough to see why a process ended; a log that isn't there says so."""
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(100)))
    assert tail(log, 2) == "    98\n    99"
    assert "no log" in tail(tmp_path / "none")


def test_ports_of_a_network_follow_the_api(tmp_path: Path):
    """In a row, one for each validator; free ones pass."""
    ports = Ports.beside(21_690, validators=3)
    assert (ports.link, ports.chain, ports.validators) == (21_691, 21_692, (21_693, 21_694, 21_695))
    check(ports, str(tmp_path))
