"""Defaults: flag over environment over project over user."""

from pathlib import Path
from typing import Any

import pytest

from clusterai.cli import settings
from clusterai.cli.failure import Failure
from clusterai.cli.main import run

COMMANDS: dict[str, Any] = {"up": {}, "account": {"fund": {}}}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's file and the project's, neither there yet."""
    user, project = tmp_path / "config.toml", tmp_path / "project"
    project.mkdir()
    monkeypatch.setattr(settings, "user_file", lambda: user)
    monkeypatch.chdir(project)
    return user, project / settings.PROJECT_FILE


def test_project_wins_over_user_and_commands_over_the_top(files: tuple[Path, Path]):
    """Each command gets the top's options under its own table's, the project's over the user's."""
    user, project = files
    user.write_text('data = "/user"\n[up]\nnodes = 5\nport = 9000\n')
    project.write_text('data = "/project"\n[up]\nnodes = 3\n')
    found = settings.load(COMMANDS)
    assert found["up"] == {"data": "/project", "nodes": 3, "port": 9000}
    assert found["account"]["fund"] == {"data": "/project"}


def test_environment_wins_over_files_and_flags_over_both(
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    """What is nearest to the person decides."""
    _, project = files
    project.write_text("[up]\nnodes = 3\nport = 9100\nmodel = 'tiny'\n")
    monkeypatch.setenv("CLUSTERAI_PORT", "9200")
    assert run(["up", "--dry-run", "--json", "--data", str(tmp_path), "--model", "other"]) == 0
    said = capsys.readouterr().out
    assert '"api": 9200' in said
    assert '"node-3"' in said
    assert '"other"' in said


def test_tables_of_daemons_are_theirs(files: tuple[Path, Path]):
    """One clusterai.toml may hold a gateway's settings too."""
    files[1].write_text("[gateway]\nport = 1\n[node]\nqueue = 2\n[up]\nnodes = 3\n")
    assert settings.load(COMMANDS)["up"] == {"nodes": 3}


@pytest.mark.parametrize("text", ["nodes = = 3", "[unknown]\na = 1"])
def test_a_file_that_cannot_be_meant_is_refused(files: tuple[Path, Path], text: str):
    """Broken TOML and tables of no command are told with the cure, not passed over."""
    files[1].write_text(text)
    with pytest.raises(Failure) as failure:
        settings.load(COMMANDS)
    assert failure.value.next
