"""What stands in deploy/ is what the program needs: systemd takes the unit, and the image is made by the tested installer."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusterai.node.main import run
from clusterai.runtime.adapters.daemon import EXIT_CONFIG
from scripts import install

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "deploy" / "clusterai-node.service"
IMAGE = ROOT / "deploy" / "node.Dockerfile"
INSTALLED = "/opt/clusterai/.venv/bin/"


class Unit(configparser.RawConfigParser):
    """Names keep their case; one that stands there twice keeps the last."""

    def __init__(self) -> None:
        super().__init__(strict=False, interpolation=None)
        self.read_string(UNIT.read_text())

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def test_systemd_takes_the_unit(tmp_path: Path):
    """Every section and setting is one of systemd's; where its own checker is here, that says so too."""
    unit = Unit()
    assert unit.sections() == ["Unit", "Service", "Install"]
    assert unit["Service"]["RestartPreventExitStatus"] == str(EXIT_CONFIG)
    checker = shutil.which("systemd-analyze")
    if checker is None:
        return
    # It wants the programs to be there.
    installed = UNIT.read_text().replace(INSTALLED + "python", sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(installed.replace(INSTALLED + "clusterai", "/bin/true"))
    done = subprocess.run([checker, "verify", str(copy)], capture_output=True, text=True, check=False)
    # It also tells of other units of this machine, which are no matter of ours.
    said = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.stem in line]
    assert said == []


@pytest.mark.parametrize("name", ["ExecStart", "ExecStop"])
def test_the_units_commands_are_the_programs(name: str):
    """What systemd starts and stops the node with understands these words."""
    program, *words = shlex.split(Unit()["Service"][name])
    assert program.startswith(INSTALLED)
    here = [sys.executable, "-m", "clusterai.cli"] if program.endswith("clusterai") else [sys.executable]
    config = words[words.index("--config") + 1]
    assert Path(config).is_relative_to(f"/var/lib/{Unit()['Service']['StateDirectory']}")
    words[words.index("--config") + 1] = "/nowhere/node.json"
    done = subprocess.run(
        [*here, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode in (EXIT_CONFIG, 5), done.stderr
    assert "/nowhere/node.json" in done.stderr


def test_the_unit_gives_time_to_drain():
    """Longer than the command waits for the daemon by default, with children spared until it has ended."""
    service = Unit()["Service"]
    assert int(service["TimeoutStopSec"]) > 65
    assert service["KillMode"] == "mixed"
    assert "drain" in service["ExecStop"]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", IMAGE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_made_by_the_tested_installer():
    """The same script and pins as everywhere; all that it copies is here, and all that the installer reads is copied."""
    made = instructions()
    target = next(rest for word, rest in made if word == "RUN" and "install.py" in rest)
    assert target == "python scripts/install.py node"
    assert "node" in install.CONTAINS
    copied = [
        source
        for word, rest in made
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    assert {"pyproject.toml", "constraints.txt", "scripts/install.py", "src"} <= set(copied)


def test_the_image_is_no_root_and_drains():
    """The last user isn't root, the signal is the one that drains, and what must outlive the container is a volume."""
    made = instructions()
    assert [rest for word, rest in made if word == "USER"] == ["clusterai"]
    assert ("STOPSIGNAL", "SIGTERM") in made
    assert ("VOLUME", "/var/lib/clusterai") in made
    bases = [rest.split()[0] for word, rest in made if word == "FROM"]
    assert len(set(bases)) == 1, "the environment links to its Python"
    assert "python:3.11" in bases[0]
    command = next(rest for word, rest in made if word == "CMD")
    assert "clusterai.node" in command
    assert run.__module__.startswith("clusterai.node")


def test_the_images_health_is_a_link(tmp_path: Path):
    """Up with one link that is up, down with none, down without a status."""
    check = next(rest for word, rest in instructions() if word == "HEALTHCHECK")
    program = check.partition('"-c", "')[2].rpartition('"]')[0]
    status = tmp_path / "status.json"
    program = program.replace("/var/lib/clusterai/node/state/status.json", str(status))

    def healthy() -> bool:
        return (
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
        )

    assert not healthy()
    status.write_text('{"links": [{"up": false}]}')
    assert not healthy()
    status.write_text('{"links": [{"up": false}, {"up": true}]}')
    assert healthy()
