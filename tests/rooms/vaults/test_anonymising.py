"""Anonymisation: what Presidio, ANJANA and pyCANON do for us, and what we count again ourselves."""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.anonymise import measured
from clusterai.cli.failure import Exit
from clusterai.cli.main import run
from clusterai.vault.adapters.anonymising import (
    Anonymiser,
    AnonymiserGone,
    NotAnonymous,
    TablePlan,
    read_csv,
    write_csv,
)
from scripts import install


@pytest.fixture(scope="module")
def python() -> Path:
    found = install.peer(install.PEERS / "anonymise.txt", install.HOME / "peers" / "anonymise")
    assert found is not None, "it isn't installed as scripts/peers/anonymise.txt wants it: make install-peers"
    return found


@pytest.fixture(scope="module")
def anonymiser(python: Path) -> Iterator[Anonymiser]:
    with Anonymiser(python, seconds=300.0) as it:
        yield it


def people(rows: int = 120) -> dict[str, list[str]]:
    draw = random.Random(3)
    return {
        "name": [f"Person {n}" for n in range(rows)],
        "age": [str(draw.randint(18, 90)) for _ in range(rows)],
        "zip": [str(draw.randint(10000, 10040)) for _ in range(rows)],
        "sex": [draw.choice("MF") for _ in range(rows)],
        "note": ["seen by Dr. John Smith"] * rows,
        "disease": [draw.choice(["flu", "cold", "asthma"]) for _ in range(rows)],
    }


def test_a_text_without_its_people(anonymiser: Anonymiser) -> None:
    """What was found is replaced by its kind, where it stood is told, and the rest stays as it was."""
    text = "John Smith (john.smith@example.com, card 4111 1111 1111 1111) takes 5 mg daily."
    got = anonymiser.text(text)
    assert got.text == "<PERSON> (<EMAIL>, card <CARD>) takes 5 mg <DATE>."
    assert [text[it.start : it.end] for it in got.found][:2] == ["John Smith", "john.smith@example.com"]


def test_a_long_text_is_cut_at_lines(anonymiser: Anonymiser) -> None:
    """Parts are put together again, and places count from the beginning of all."""
    text = "Nothing to see here.\n" * 1500 + "Mail bob@example.org\n"
    got = anonymiser.text(text)
    (found,) = (it for it in got.found if it.kind == "EMAIL")
    assert text[found.start : found.end] == "bob@example.org"
    assert got.text.endswith("Mail <EMAIL>\n")
    with pytest.raises(ValueError, match="split"):
        anonymiser.texts(["x" * 600_000])


def test_what_is_missed_is_no_more_than_is_said(anonymiser: Anonymiser) -> None:
    """The shares that docs/how-to/anonymise.md states hold on the labelled sentences, and strict finds more."""
    usual, _ = measured(anonymiser, "generated", plain=False, strict=False)
    strict, _ = measured(anonymiser, "generated", plain=False, strict=True)
    assert usual["covered"] >= 0.80
    assert strict["covered"] >= 0.94
    assert strict["kinds"]["PERSON"]["covered"] >= 0.96
    hard, missed = measured(anonymiser, "hard", plain=False, strict=True)
    assert hard["covered"] >= 0.90
    assert missed, "a tool that missed nothing here would be worth reading about"


def test_rows_of_a_table_look_alike(anonymiser: Anonymiser) -> None:
    """k rows at least share their quasi-identifiers, identifiers are gone, texts are cleaned; counted here again."""
    plan = TablePlan(("age", "zip", "sex"), ("name",), ("disease",), ("note",), k=5)
    made = anonymiser.table(people(), plan)
    groups = Counter(zip(*(made.columns[name] for name in plan.quasi), strict=True))
    assert min(groups.values()) == made.k >= 5
    assert "name" not in made.columns
    assert set(made.columns["note"]) == {"seen by Dr. <PERSON>"}
    assert made.left_out <= 6


def test_sensitive_values_differ_among_them(anonymiser: Anonymiser) -> None:
    """l different values in each group, and their distribution no further from all rows' than t."""
    made = anonymiser.table(
        people(), TablePlan(("age", "zip", "sex"), ("name", "note"), ("disease",), k=5, ell=2, t=0.4)
    )
    assert made.ell >= 2
    assert made.t <= 0.4


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (TablePlan(("nothing",)), "no column"),
        (TablePlan(("age",), ("age",)), "twice"),
        (TablePlan((), ("name",)), "alike"),
        (TablePlan(("age",), k=1000), "alike"),
        (TablePlan(("age", "sex"), (), ("disease",), ell=9), "no generalisation|l is"),
    ],
)
def test_a_table_that_cannot_be_made_anonymous(anonymiser: Anonymiser, plan: TablePlan, why: str) -> None:
    """It is said, and nothing comes out."""
    with pytest.raises(NotAnonymous, match=why):
        anonymiser.table(people(), plan)


@pytest.mark.parametrize("text", ["", "a,b\n", "a,a\n1,2\n", "a,\n1,2\n", "a,b\n1\n"])
def test_what_is_no_table(text: str) -> None:
    """No header, a name twice, an empty name, ragged rows."""
    with pytest.raises(NotAnonymous):
        read_csv(text)


def test_csv_there_and_back() -> None:
    """Quotes, commas and line ends in cells survive."""
    columns = {"a": ["x, y", 'say "no"'], "b": ["1\n2", ""]}
    assert read_csv(write_csv(columns)) == columns


def test_a_worker_that_ends_is_said(tmp_path: Path) -> None:
    """No such environment, one without the libraries: an error that names it, and no output."""
    with pytest.raises(AnonymiserGone), Anonymiser(tmp_path / "no" / "python"):
        pass
    with Anonymiser(Path(sys.executable), seconds=60.0) as it, pytest.raises(AnonymiserGone, match="peers"):
        it.texts(["John"])


def test_the_command(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text and a table; an output is never written over, and a table needs to know its columns."""
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("Mail bob@example.org now.")
    Path("in.csv").write_text(write_csv(people()))
    how = ["--python", str(python), "--quiet"]
    assert run(["vault", "anonymise", "in.txt", "out.txt", *how]) == Exit.OK
    assert Path("out.txt").read_text() == "Mail <EMAIL> now."
    assert run(["vault", "anonymise", "in.txt", "out.txt", *how]) == Exit.BUSY
    assert run(["vault", "anonymise", "in.csv", "out.csv", *how]) == Exit.USAGE
    table = [
        "vault",
        "anonymise",
        "in.csv",
        "out.csv",
        "--quasi",
        "age,zip,sex",
        "--identifier",
        "name,note",
        *how,
    ]
    assert run(table) == Exit.OK
    assert "Person" not in Path("out.csv").read_text()
    assert run(["vault", "anonymise", "missing.txt", "x", *how]) == Exit.NOT_FOUND
