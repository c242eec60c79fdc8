"""The documents say what is: the reference is what the program would write, and no link leads nowhere."""

import re
from pathlib import Path

import pytest

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
