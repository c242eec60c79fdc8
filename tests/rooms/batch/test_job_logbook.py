"""A job's log where it runs: by offset, rewound with the job, bounded, and never a reason to fail."""

from pathlib import Path

import pytest

from clusterai.sandbox import BlobStore, LeaseStore
from clusterai.work.batch.adapters.logbook import PIECE_BYTES, Logbook, Stream

TEXT = b"".join(b"line %d\n" % number for number in range(30_000))


def whole(book: Logbook, stream: Stream = "stdout") -> bytes:
    found = b""
    while piece := book.read(stream, len(found)):
        assert len(piece) <= PIECE_BYTES
        found += piece
    return found


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_it_is_read_from_any_offset(tmp_path: Path, pieces: int):
    """However it was printed, before a flush and after, by this process and by the next."""
    store = BlobStore(tmp_path)
    book = Logbook(store)
    size = -(-len(TEXT) // pieces)
    for at in range(0, len(TEXT), size):
        book.write("stdout", TEXT[at : at + size])
        book.write("stderr", b"!")
    for look in (book, Logbook(store)):
        if look is not book:
            book.flush()
            look = Logbook(store)
        assert look.size("stdout") == len(TEXT)
        assert whole(look) == TEXT
        assert whole(look, "stderr") == b"!" * len(range(0, len(TEXT), size))
        for start in (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, len(TEXT) - 1):
            assert TEXT[start:].startswith(look.read("stdout", start))
            assert look.read("stdout", start)
        assert look.read("stdout", len(TEXT)) == look.read("stdout", 2**63 - 1) == b""


def test_a_rewound_log_goes_on_where_the_job_does(tmp_path: Path):
    """What was printed behind the mark is gone, and printed again it has the same offsets."""
    book = Logbook(LeaseStore(tmp_path / "lease"))
    book.write("stdout", b"one ")
    mark = book.flush()
    book.write("stdout", b"two ")
    book.flush()
    book.write("stdout", b"three")
    book.rewind(mark)
    assert [*book.write("stdout", b"two again")] == [("stdout", 4, b"two again")]
    assert whole(book) == b"one two again"


def test_beyond_its_bound_it_ends_and_says_so(tmp_path: Path):
    """At the bound everything is kept; one byte more is cut off, with a line about it; the other stream ends too."""
    store = BlobStore(tmp_path)
    book = Logbook(store, most_bytes=10_000)
    room = 10_000 - 256
    assert [len(data) for _, _, data in book.write("stdout", bytes(room))] == [room]
    (told,) = book.write("stdout", b"x")
    assert told[0] == "stderr"
    assert b"no more of this log" in told[2]
    assert book.write("stdout", b"y") == book.write("stderr", b"z") == []
    assert (book.size("stdout"), b"no more" in whole(book, "stderr")) == (room, True)


def test_a_full_or_ended_volume_ends_the_log_and_not_the_job(tmp_path: Path):
    """Nothing is raised into the job that prints."""
    store = LeaseStore(tmp_path / "lease", quota=100_000)
    book = Logbook(store)
    for _ in range(10):
        book.write("stdout", bytes(PIECE_BYTES))
    assert book.flush() == 1
    assert book.size("stdout") == PIECE_BYTES
    other = Logbook(LeaseStore(tmp_path / "other"))
    other.write("stdout", bytes(PIECE_BYTES))
    ending = LeaseStore(tmp_path / "ending")
    third = Logbook(ending)
    third.write("stdout", bytes(PIECE_BYTES) + b"more")
    ending.end()
    third.flush()
    assert third.read("stdout", 0) == b""
