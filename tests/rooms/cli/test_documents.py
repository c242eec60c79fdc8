"""The documents say what is: the reference is what the program would write, and no link leads nowhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from clusterai.cli import main as cli
from scripts import reference

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


@pytest.mark.parametrize("name", ["cli.md", "config.md", "api.md"])
def test_the_reference_is_what_the_program_would_write(name: str):
    """Change a command, a setting or an endpoint, then run `make docs`."""
    assert (reference.TARGET / name).read_text() == reference.pages()[name], "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page: Path):
    """Every relative link of a page names a file or folder that is here."""
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_the_readme_is_short():
    """Under 600 words."""
    assert len((ROOT / "README.md").read_text().split()) < 600


def test_every_decision_is_listed():
    """The index names each page of decisions."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    assert all(page.name in index for page in folder.glob("0*.md"))


def test_the_owners_tutorial_types_what_the_program_knows():
    """Each of its commands is there, with each of its options."""
    text = (ROOT / "docs" / "tutorials" / "earn-with-a-machine.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 8
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "clusterai"
        command = typer.main.get_command(cli.app)
        while words and isinstance(command, TyperGroup):
            command = command.commands[words.pop(0)]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line
