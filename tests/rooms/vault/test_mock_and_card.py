"""What is published of a vault: it follows from what was declared, and from nothing else."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clusterai.protocol.croissant import About, dataset
from clusterai.vault.adapters.importing import BadData, find, guess, read_rows
from clusterai.vault.core.card import BadCard, read_facts, read_readme
from clusterai.vault.core.mock import mock_csv, mock_rows
from clusterai.vault.core.schema import BadCell, BadSchema, Column, Schema, cell, read_schema, write_schema
from tests.rooms.vault.vaultbed import SCHEMA, Bed, csv_file, rows


def test_a_mock_follows_from_the_schema_alone(bed: Bed, tmp_path: Path) -> None:
    """Other data under the same schema has the same mock; every cell is one that the schema allows; two rows a person."""
    other = csv_file(tmp_path / "other.csv", rows(60)[30:])
    assert bed.vault.mock() == mock_csv(SCHEMA)
    assert other.exists()
    found = mock_rows(SCHEMA, 200)
    for row in found:
        for column in SCHEMA.columns:
            assert cell(column, row[column.name]) == row[column.name]
            if column.bounds is not None and column.kind in ("int", "float") and row[column.name] is not None:
                assert column.bounds[0] <= row[column.name] <= column.bounds[1]
    assert [row["patient"] for row in found[:4]] == [0, 0, 1, 1]
    assert mock_rows(SCHEMA, 5, seed=1) != mock_rows(SCHEMA, 5, seed=2)


def test_a_card_says_what_a_requester_needs(bed: Bed) -> None:
    """Schema, prices, key and snapshot; never the rows' number or a value."""
    facts = read_facts(bed.vault.card)
    assert facts.schema == SCHEMA
    assert facts.policy["use_wei"] == 50
    assert bytes.fromhex(facts.seal_to[2:]) == bed.vault.seal_to
    for bad in (b"", b"{}", b"[]", b'{"clusterai": 1}', b"\xff"):
        with pytest.raises(BadCard):
            read_facts(bad)


def test_a_vaults_croissant_names_its_mock_alone(bed: Bed) -> None:
    """The one file that it names is the mock beside it, its columns are the schema's, and all words are as in any set's card."""
    told = msgspec.json.decode(bed.vault.folder.croissant.read_bytes(), type=dict[str, object])
    [file] = msgspec.convert(told["distribution"], list[dict[str, str]])
    assert (file["@id"], file["sha256"]) == ("mock.csv", hashlib.sha256(bed.vault.mock()).hexdigest())
    [rows_] = msgspec.convert(told["recordSet"], list[dict[str, object]])
    fields = msgspec.convert(rows_["field"], list[dict[str, object]])
    assert [field["name"] for field in fields] == [it.name for it in SCHEMA.columns if it.kind != "array"]
    assert set(told) <= set(dataset(About("x", tags=("a",), languages=("en",))))


def test_a_readme_has_hugging_faces_keys() -> None:
    """Read strictly: an unknown key, a missing end, and no text at all are told."""
    head, words = read_readme(b"---\nlicense: cc-by-4.0\nlanguage: [en]\ntags: [a]\n---\n\n# Words\n")
    assert (head.license, head.language, words) == ("cc-by-4.0", ("en",), "# Words")
    assert read_readme(b"only words")[1] == "only words"
    for bad in (b"---\nlicence: x\n---\n", b"---\nlicense: x\n", b"---\n: [\n---\n", b"\xff", b"x" * 70_000):
        with pytest.raises(BadCard):
            read_readme(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"columns": [{"name": "a", "kind": "int", "low": 5, "high": 1}]},
        {"columns": [{"name": "a", "kind": "int", "low": 5}]},
        {"columns": [{"name": "a", "kind": "int"}, {"name": "A", "kind": "int"}]},
        {"columns": [{"name": "a", "kind": "category"}]},
        {"columns": [{"name": "a", "kind": "category", "categories": ["x", "x"]}]},
        {"columns": [{"name": "a", "kind": "array"}]},
        {"columns": [{"name": "a b", "kind": "int"}]},
        {"columns": [{"name": "a", "kind": "date", "low": 1, "high": 2}]},
        {"columns": [{"name": "a", "kind": "date", "low": "2020-13-01", "high": "2021-01-01"}]},
        {"columns": [{"name": "a", "kind": "int"}], "unit": "b"},
        {"columns": []},
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(change: object) -> None:
    """Each with its reason; and a good one is the same after writing and reading."""
    with pytest.raises(BadSchema):
        read_schema(msgspec.json.encode(change))
    assert read_schema(write_schema(SCHEMA)) == SCHEMA


def test_what_is_guessed_is_rounded_and_marked(tmp_path: Path) -> None:
    """Numbers outwards to 1, 2 or 5 times a power of ten, dates to years, and a rare value makes no category."""
    lines = ["n,f,d,c,rare,b,t"]
    lines += [
        f"{at},{-at / 3},2021-05-{1 + at % 28:02},{'xy'[at % 2]},{'common' if at else 'unique'},true,text {at}"
        for at in range(40)
    ]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    schema = guess(find(tmp_path / "x.csv"))
    assert [(it.kind, it.low, it.high) for it in schema.columns[:3]] == [
        ("int", 0, 50),
        ("float", -20.0, 0.0),
        ("date", "2021-01-01", "2021-12-31"),
    ]
    assert [it.kind for it in schema.columns[3:]] == ["category", "text", "bool", "text"]
    assert [it.guessed for it in schema.columns] == [True, True, True, True, False, False, False]
    assert len(list(read_rows(find(tmp_path / "x.csv"), schema))) == 40


def test_marks_for_what_is_missing_leave_a_column_its_kind(tmp_path: Path) -> None:
    """NA, nan and their like are missing where numbers, dates or yes and no are; in texts they stay; the owner is told of each."""
    marks = ["NA", "nan", "n/a", "?", "", "NaN", "null", "-", "NA", "None"]
    lines = ["n,f,d,b,c,t,odd"]
    lines += [f"{at},{at / 3},2021-05-01,true,NA,text {at},{at}" for at in range(1, 31)]
    lines += [f"{it},{it},{it},{it},NA,NA,7" for it in marks]
    lines[4] = lines[4].rpartition(",")[0] + ",12 kg"
    (tmp_path / "x.csv").write_text("\n".join(lines))
    found = find(tmp_path / "x.csv")
    told: list[str] = []
    schema = guess(found, told.append)
    kinds = [(it.kind, it.nullable) for it in schema.columns]
    assert kinds == [
        ("int", True),
        ("float", True),
        ("date", True),
        ("bool", True),
        ("category", False),
        ("text", False),
        ("text", False),
    ]
    rows = list(read_rows(found, schema))
    assert [rows[-1][name] for name in "nfdbct"] == [None, None, None, None, "NA", "NA"]
    assert (
        told[0] == "n: - (1), ? (1), NA (2), NaN (1), None (1), n/a (1), nan (1), null (1) count as missing"
    )
    assert told[4] == (
        "odd is taken as text: 1 of its 40 values are no numbers, the first in row 4; if it should be numbers, leave those empty"
    )
    strict = schema.__class__(
        columns=tuple(msgspec.structs.replace(it, nullable=False) for it in schema.columns)
    )
    with pytest.raises(BadData, match="row 31: column n has a missing value"):
        list(read_rows(found, strict))


def test_a_number_that_is_none_is_missing_in_arrays_too(tmp_path: Path) -> None:
    """numpy writes a missing value as nan: it's null, and no sum becomes nan of it."""
    np.savez(tmp_path / "x.npz", dose=np.array([1.5, np.nan, 2.0]))
    found = find(tmp_path / "x.npz")
    assert [it["dose"] for it in read_rows(found, guess(found))] == [1.5, None, 2.0]


def test_arrays_and_texts_are_taken_too(tmp_path: Path) -> None:
    """A folder of .npz: rows along the first axis; a folder of .txt: one row a file."""
    for name, value in (("a", 1), ("b", 2)):
        images = np.full((3, 4, 4), value, np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.arange(3))
    found = find(tmp_path)
    schema = guess(found)
    assert [(it.kind, it.shape, it.dtype) for it in schema.columns] == [
        ("array", (4, 4), "uint8"),
        ("int", (), ""),
    ]
    assert len(list(read_rows(found, schema))) == 6
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "one.txt").write_text("first")
    (texts / "two.txt").write_text("second")
    found = find(texts)
    assert [row["text"] for row in read_rows(found, guess(found))] == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b""),
        ("x.csv", b"a,b\n1\n"),
        ("x.csv", b"a\n1,2\n"),
        ("x.csv", b"a\n\xff\n"),
        ("x.jsonl", b"{}\n"),
        ("x.jsonl", b'{"a": 1}\n{"b": 2}\n'),
        ("x.jsonl", b'{"a": [1]}\n'),
        ("x.npz", b"PK"),
        ("x.npz", b"PK\x03\x04 no archive"),
        ("x.csv", "name,age\nJos\u00e9,3\n".encode("latin-1")),
        ("x.csv", "name,age\nA,3\n".encode("utf-16")),
        ("x.csv", b"a,,c\n1,2,3\n"),
        ("x.csv", b"a b,a-b\n1,2\n"),
        ("x.csv", "\u0438\u043c\u044f\n1\n".encode()),
        ("x.csv", b"x" * 64 + b"\n1\n"),
        ("x.csv", ",".join(f"c{at}" for at in range(5_000)).encode()),
        ("x.bin", b""),
    ],
)
def test_what_cant_be_read_says_where(tmp_path: Path, name: str, content: bytes) -> None:
    """The line or the file; never a crash, and no pickle is opened."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData):
        guess(find(tmp_path / name))


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_spreadsheets_table_is_taken_as_it_is(tmp_path: Path, mark: str) -> None:
    """Semicolons and tabs part cells, names become what SQL can say, blank lines are none, and no number is too large."""
    lines = [["Blood Pressure (mm)", "2nd visit", "Gr\u00f6\u00dfe", "id"], ["1", "2", "3", "9" * 30], [""]]
    (tmp_path / "x.csv").write_text("\n".join(mark.join(line) for line in lines))
    found = find(tmp_path / "x.csv")
    schema = guess(found)
    assert schema.names == ("Blood_Pressure_mm", "_2nd_visit", "Groe", "id")
    assert (schema.columns[3].kind, schema.columns[3].bounds) == ("float", None)
    assert [list(row.values()) for row in read_rows(found, schema)] == [[1, 2, 3, float("9" * 30)]]


def test_images_are_told_where_they_go(tmp_path: Path) -> None:
    """A folder of them isn't read, and the reason says what is."""
    (tmp_path / "scan.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadData, match=r"numpy\.savez"):
        find(tmp_path)


def test_a_cell_of_another_kind_is_refused_without_its_value() -> None:
    """Errors may travel further than data may."""
    column = Column(name="age", kind="int")
    for given in ("sixty", "", None, 1.5, 2**63, "1e3"):
        with pytest.raises(BadCell) as no:
            cell(column, given)
        assert "sixty" not in str(no.value)
    assert cell(Column(name="t", kind="text"), "") == ""
    assert cell(Column(name="c", kind="category", categories=("x",), nullable=True), "") is None
    schema = Schema(columns=(column,))
    assert schema.column("age") is column
