"""A folder into which a set comes: killed at any moment, it goes on with what was right."""

from pathlib import Path

import pytest

from clusterai.content import InTheWay, Landing, Manifest
from clusterai.content.adapters.folder import is_intact
from tests.rooms.content.villains import PIECE, data_set


def pieces(source: Path, manifest: Manifest) -> list[bytes]:
    found: list[bytes] = []
    for piece in manifest.pieces():
        raw = (source / manifest.files[piece.file].path).read_bytes()
        found.append(raw[piece.start : piece.start + piece.size])
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_files_appear_when_they_are_whole(source: Path, tmp_path: Path) -> None:
    """An empty file at once, another when its last piece came, in any order."""
    manifest, to = data_set(source), tmp_path / "to"
    data = pieces(source, manifest)
    with Landing(to, manifest) as landing:
        assert (to / "empty").exists()
        for number in reversed(landing.missing()):
            landing.write(number, data[number])
        assert landing.is_whole
    assert is_intact(to, manifest) is None
    assert not list((to / ".clusterai").glob("*.part"))
    assert not (to / ".clusterai/have").exists()


@pytest.mark.parametrize("done", [0, 1, 7, 25, 29])
def test_it_goes_on_where_it_was_killed(source: Path, tmp_path: Path, done: int) -> None:
    """Nothing is closed or flushed by a kill: what the journal claims is hashed, and only that is kept."""
    manifest, to = data_set(source), tmp_path / "to"
    data = pieces(source, manifest)
    killed = Landing(to, manifest)
    for number in range(done):
        killed.write(number, data[number])
    killed.close()  # which writes nothing: what a killed process leaves
    with Landing(to, manifest) as again:
        assert again.missing() == list(range(done, manifest.count))
        for number in again.missing():
            again.write(number, data[number])
    assert is_intact(to, manifest) is None


def test_what_the_journal_claims_is_not_believed(source: Path, tmp_path: Path) -> None:
    """A power cut can leave a claim without its bytes, and half a claim."""
    manifest, to = data_set(source), tmp_path / "to"
    data = pieces(source, manifest)
    killed = Landing(to, manifest)
    for number in (5, 6, 7):
        killed.write(number, data[number])
    killed.close()
    part = to / ".clusterai/00001.part"
    with part.open("r+b") as file:
        file.seek(PIECE)
        file.write(bytes(100))
    with (to / ".clusterai/have").open("ab") as file:
        file.write((9).to_bytes(4, "big") + (2**32 - 1).to_bytes(4, "big") + b"\0\0")
    with Landing(to, manifest) as again:
        assert sorted(set(range(manifest.count)) - set(again.missing())) == [5, 7]


def test_other_files_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    """A file of the same name and other content, another set, a second fetch: each is said."""
    manifest, to = data_set(source), tmp_path / "to"
    to.mkdir()
    (to / "b.csv").write_text("mine")
    with pytest.raises(InTheWay, match=r"b\.csv"):
        Landing(to, manifest)
    assert (to / "b.csv").read_text() == "mine"
    (to / "b.csv").unlink()
    with Landing(to, manifest), pytest.raises(InTheWay, match="another process"):
        Landing(to, manifest)
    (source / "b.csv").write_text("new")
    with pytest.raises(InTheWay, match="another data set"):
        Landing(to, data_set(source, 2))


def test_a_link_does_not_lead_out(source: Path, tmp_path: Path) -> None:
    """A folder in the target that is a link would put files elsewhere."""
    manifest, to = data_set(source), tmp_path / "to"
    to.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (to / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InTheWay, match="link"):
        Landing(to, manifest)
    assert not list((tmp_path / "elsewhere").iterdir())
