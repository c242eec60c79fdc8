"""Where a daemon's settings come from, and how a daemon begins and ends."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.runtime.adapters.config import BadConfig, Dialer, load, scalars
from clusterai.runtime.adapters.daemon import EXIT_CONFIG, chores

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
