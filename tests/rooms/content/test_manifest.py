"""Manifests: an address says all of a data set, and a stranger's manifest promises nothing that is believed unchecked."""

from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from clusterai.content import BadManifest, BadPath, File, Manifest, NotPublishable, decode, encode, scan
from clusterai.content.core import manifest as limits
from clusterai.content.core.paths import checked
from clusterai.protocol import canonical
from tests.rooms.content.villains import PIECE, data_set


def test_a_folder_and_its_manifest(tmp_path: Path) -> None:
    """Pieces are BLAKE3 of consecutive parts of each file, and what is encoded decodes to the same address."""
    made = data_set(tmp_path)
    assert [file.path for file in made.files] == [
        "a/test.bin",
        "a/train.bin",
        "b.csv",
        "empty",
        "ünicode name.txt",
    ]
    assert made.count == 5 + 21 + 1 + 0 + 3
    raw = (tmp_path / "a/train.bin").read_bytes()
    train = [piece for piece in made.pieces() if piece.file == 1]
    assert [blake3(raw[it.start : it.start + it.size]).digest() for it in train] == [
        it.digest for it in train
    ]
    assert decode(encode(made), made.address()) == made
    assert scan(tmp_path, PIECE).address() == made.address()


def test_every_change_is_another_address(tmp_path: Path) -> None:
    """A byte, a name or a piece's size: none changes unseen."""
    first = data_set(tmp_path).address()
    (tmp_path / "b.csv").write_bytes((tmp_path / "b.csv").read_bytes()[:-1] + b"!")
    second = scan(tmp_path, PIECE).address()
    (tmp_path / "b.csv").rename(tmp_path / "c.csv")
    third = scan(tmp_path, PIECE).address()
    assert len({first, second, third, scan(tmp_path, 2 * PIECE).address()}) == 4


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd", "/etc/passwd", "a/../../b", "a//b", "./a", "a/.", "", "C:/x", "a\\b", "a\0b", "a\nb",
        "con", "a/NUL.txt", "com1", "a.", "a ", " a", "a/" * 17 + "b", "x" * 513, "e\u0301", "a\u202eb", ".clusterai/have",
        ".CLUSTERAI/x", "a\ud800b", "what?",
    ],
)  # fmt: skip
def test_a_path_that_could_mean_another_place_is_refused(path: str) -> None:
    """Climbing, absolute, device names, control characters, second spellings, our own folder."""
    with pytest.raises(BadPath):
        checked(path)


def _forged(*files: tuple[str, int, bytes], piece: int = PIECE) -> bytes:
    return msgspec.msgpack.encode(["content.1", piece, [list(file) for file in files]])


H = bytes(32)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xc1", b"\x93", _forged(("../a", 1, H)), _forged(("a", 1, b"")), _forged(("a", 0, H)),
        _forged(("a", PIECE + 1, H)), _forged(("a", 1, H[:31])), _forged(("b", 1, H), ("a", 1, H)),
        _forged(("a", 1, H), ("a", 1, H)), _forged(("A", 1, H), ("a", 1, H)), _forged(("a", 1, H), ("a/b", 1, H)),
        _forged(("a", 1, H), piece=PIECE + 1), _forged(("a", 1, H), piece=1), _forged(("a", 1, H), piece=1 << 40),
        _forged(("a", -1, b"")), _forged(("a", 1 << 60, b"")), _forged(("a", 1, H)) + b"\0",
        msgspec.msgpack.encode(["content.1", PIECE, [], 1]), msgspec.msgpack.encode(["content.2", PIECE, []]),
        b"\xdd\xff\xff\xff\xff" * 100, b"\x91" * 100_000,
    ],
)  # fmt: skip
def test_a_hostile_manifest_is_refused(raw: bytes) -> None:
    """Lengths that lie, order, doubles, case, nesting, spellings that aren't canonical."""
    with pytest.raises(BadManifest):
        decode(raw)


def test_a_small_manifest_cannot_promise_a_huge_set() -> None:
    """What a set's size is bounded by is the manifest's own size: no few bytes stand for petabytes."""
    most = limits.MOST_MANIFEST_BYTES // limits.HASH_BYTES * limits.MOST_PIECE_BYTES
    with pytest.raises(BadManifest):
        decode(_forged(("a", limits.MOST_BYTES, b""), piece=limits.MOST_PIECE_BYTES))
    raw = _forged(*[(f"{n:05}", 1, H) for n in range(limits.MOST_FILES + 1)])
    with pytest.raises(BadManifest):
        decode(raw)
    assert most <= 1 << 44


def test_another_manifest_is_not_the_one_asked_for(tmp_path: Path) -> None:
    """Bytes are compared with the address before anything is read from them."""
    made = data_set(tmp_path)
    other = encode(Manifest(PIECE, (File("a", 0, b""),)))
    with pytest.raises(BadManifest, match="address"):
        decode(other, made.address())
    assert canonical.content_digest(encode(made)) == made.address()


def test_links_and_odd_names_are_not_published(tmp_path: Path) -> None:
    """A link could publish what lies outside of the folder."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "l").symlink_to("/etc/passwd")
    with pytest.raises(NotPublishable, match="link"):
        scan(tmp_path)
    (tmp_path / "l").unlink()
    (tmp_path / "what?").write_text("1")
    with pytest.raises(NotPublishable, match="rename"):
        scan(tmp_path)
    with pytest.raises(NotPublishable, match="no files"):
        scan(tmp_path / "a")
