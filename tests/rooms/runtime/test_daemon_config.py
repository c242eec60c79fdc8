"""Where a daemon's settings come from, and how a daemon begins and ends."""

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.runtime.adapters import daemon
from clusterai.runtime.adapters.config import BadConfig, Dialer, load, scalars
from clusterai.runtime.adapters.daemon import EXIT_CONFIG, EXIT_FULL, chores, main
from clusterai.runtime.adapters.journal import JournalLost

GOOD: dict[str, Any] = {
    "data": "state",
    "network": "/etc/network.json",
    "key": "hot.key",
    "owner": "0x" + "22" * 20,
    "gateways": [{"owner": "0x" + "11" * 20, "url": "wss://gateway.example:8443/"}],
}


class Config(Dialer, frozen=True, kw_only=True):
    steps: int = 3
    names: tuple[str, ...] = ()


def written(path: Path, **more: Any) -> Path:
    path.write_bytes(msgspec.json.encode(GOOD | more))
    return path


@pytest.mark.parametrize(
    ("flags", "environment", "more", "steps"),
    [
        ({}, {}, {}, 3),
        ({}, {}, {"steps": 4}, 4),
        ({}, {"CLUSTERAI_TOY_STEPS": "5"}, {"steps": 4}, 5),
        ({"steps": "6"}, {"CLUSTERAI_TOY_STEPS": "5"}, {"steps": 4}, 6),
    ],
)
def test_the_flag_goes_first_then_the_variable_the_file_and_the_default(
    tmp_path: Path, flags: dict[str, str], environment: dict[str, str], more: dict[str, Any], steps: int
) -> None:
    """Each is asked only where those before it are silent."""
    assert load(Config, "toy", written(tmp_path / "c.json", **more), environment, flags).steps == steps


def test_without_a_file_named_the_projects_table_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`[toy]` of ./clusterai.toml; other daemons' tables aren't looked at."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadConfig, match="data"):
        load(Config, "toy", None, {})
    body = "\n".join(f"{name} = {value!r}" for name, value in GOOD.items() if isinstance(value, str))
    gateways = '[[toy.gateways]]\nowner = "0x1111111111111111111111111111111111111111"\nurl = "wss://g"\n'
    (tmp_path / "clusterai.toml").write_text(f"[toy]\n{body}\n{gateways}[node]\nnonsense = 1\n")
    found = load(Config, "toy", None, {})
    assert found.data == tmp_path / "state"


def test_relative_paths_are_of_whoever_named_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's own folder, but the current one for what flags and variables say."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    found = load(Config, "toy", written(tmp_path / "c.json"), {"CLUSTERAI_TOY_DATA": "elsewhere"})
    assert found.key == tmp_path / "hot.key"
    assert found.data == home / "elsewhere"
    assert found.network == Path("/etc/network.json")


def test_lists_and_tables_stand_in_the_file_alone() -> None:
    """There is no variable for what is more than one value."""
    assert scalars(Config).keys() & {"steps", "data", "metrics_port", "survives", "models_folder"} == {
        *("steps", "data", "metrics_port", "survives", "models_folder")
    }
    assert not scalars(Config).keys() & {"names", "gateways"}


def test_a_chore_that_fails_ends_the_body_and_the_others() -> None:
    """Half a daemon is worse than none; when the body ends, chores end with it."""
    ended: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def fails() -> None:
        raise OSError("disk")

    async def broken() -> None:
        async with chores(forever("one"), fails()):
            await forever("body")

    async def well() -> None:
        async with chores(forever("two")):
            await asyncio.sleep(0)

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(broken())
    assert caught.group_contains(OSError, match="disk")
    assert sorted(ended) == ["body", "one"]
    asyncio.run(well())
    assert ended[-1] == "two"


@pytest.mark.parametrize("daemon", ["gateway", "node", "validator"])
def test_a_daemon_that_is_told_nonsense_says_so_and_ends(tmp_path: Path, daemon: str) -> None:
    """One line that names the setting, and an exit code that tells supervisors not to try again."""
    path = written(tmp_path / "c.json")
    done = subprocess.run(
        [sys.executable, "-m", f"clusterai.{daemon}", "--config", str(path), "--log-level", "loud"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ.copy(),
    )
    assert done.returncode == EXIT_CONFIG
    assert done.stderr.startswith("error: ")
    assert "c.json" in done.stderr


def full_sqlite(_: Path) -> None:
    db = sqlite3.connect(":memory:")
    try:
        db.execute("create table it (blob)")
        db.execute("pragma max_page_count=2")
        db.execute("insert into it values (zeroblob(100000))")
    finally:
        db.close()


def full_disk(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def lost(_: Path) -> None:
    raise JournalLost("database or disk is full")


@pytest.mark.parametrize("write", [full_sqlite, full_disk, lost])
def test_a_daemon_on_a_full_disk_says_so_and_may_be_started_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[Path], None],
) -> None:
    """A few lines without a traceback, and the exit code of what passes; with another error beside it, all of both is shown."""
    monkeypatch.setattr(sys, "argv", ["toy", "--config", str(written(tmp_path / "c.json"))])
    monkeypatch.setattr(daemon, "log_json", str)  # which is the process's, for ever

    async def chore() -> None:
        write(tmp_path)

    async def run(_: Config) -> None:
        async with chores(chore()):
            await asyncio.sleep(60)

    assert main("toy", Config, run, ()) == EXIT_FULL
    told = capsys.readouterr().err
    assert "make room" in told
    assert len(told.splitlines()) == 2

    async def faulty(_: Config) -> None:
        with pytest.raises((OSError, sqlite3.Error, JournalLost)) as full:
            write(tmp_path)
        raise BaseExceptionGroup("both", [full.value, ZeroDivisionError()])

    with pytest.raises(BaseExceptionGroup):
        main("toy", Config, faulty, ())
