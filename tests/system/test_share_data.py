"""The tutorial `share-data.md` as it is written: each command is typed in order, on a machine of its own."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.system.running import UP_PORTS, until

pytestmark = pytest.mark.system

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "share-data.md"
SOURCE = Path(__file__).resolve().parents[2] / "src"


class Machine:
    """A user's machine: its folders, and what is typed there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._env = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "CLUSTERAI_DATA": str(home / "network"),
            "CLUSTERAI_PORT": str(free_port(UP_PORTS)),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "share"),
        }

    def types(self, words: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "clusterai.cli", *words],
            cwd=self.home,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def told(self, *words: str) -> Any:
        return json.loads(self.types([*words, "--json"]))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    if (tmp_path / "network" / "up.json").exists():
        made.types(["down"])


def test_the_tutorial_is_true(machine: Machine) -> None:
    """Made, served, asked, approved, queried, logged, revoked: each command succeeds, and the words around it hold."""
    blocks: list[tuple[str, str]] = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [kind for kind, _ in blocks].count("sh") == 6
    said: dict[str, str] = {}
    for kind, text in blocks:
        if kind == "python":
            subprocess.run([sys.executable, "-c", text], cwd=machine.home, check=True, timeout=240)
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line)
            assert program == "clusterai"
            verb = " ".join(words[:2])
            if verb == "vault approve":
                words[3] = machine.told("vault", "inbox", "wards")["requests"][0]["request"]
            if words[0] == "query":
                until("the grant is on chain", lambda: granted(machine))
            if verb == "vault revoke":
                words[3] = machine.told("vault", "inbox", "wards", "--all")["requests"][0]["grant"]
            if verb == "data search":
                # A gateway lists a vault within a second or two of its node's link.
                until("the vault is listed", lambda: machine.told("vault", "show", "wards")["dataset"])
            said[verb if words[0] != "query" else "query"] = machine.types(words)
            if verb == "vault uses":
                [use] = machine.told("vault", "uses", "wards")["uses"]
                assert (use["index"], use["epsilon"]) == (0, 0.5)
    assert "5000" in said["vault show"]
    assert said["data mock"].count("\n") == 6
    assert "wards" in said["data search"]
    assert re.search(r"dose +float +private +0.0 to 10.0", said["data show"])
    assert "granted" not in said["vault inbox"]
    assert re.search(r"north +2\d\d\d ±", said["query"])
    assert "revoked" in said["data grants"]


def granted(machine: Machine) -> bool:
    return [it["state"] for it in machine.told("data", "grants")["grants"]] == ["granted"]
