"""What a job printed, in its store: by stream and offset, so that whoever lacks a piece can ask for it, and nobody gets one twice.

At a segment's end it is flushed, and the list of segments notes how far it went (`SegmentLog`). A job that goes on from there rewinds it,
and what is printed again takes the same offsets. It is bounded: what is printed beyond `MOST_BYTES` of a stream, or when the store is full,
is neither kept nor sent, and a last line in `stderr` says so.
"""

from bisect import bisect_right
from typing import Literal

from clusterai.sandbox import BlobStore, NoSuchBlob, StoreFull
from clusterai.sandbox.adapters.growing import Appended

Stream = Literal["stdout", "stderr"]
MOST_BYTES = 32 << 20
"""Of each stream."""
PIECE_BYTES = 64 << 10
_SPARE = 256
"""For the line that says that it was cut off."""
_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


class _Kept:
    """One stream: where its flushed pieces begin, and in which records they are."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.records: list[int] = []
        self.flushed = 0
        self.held = bytearray()

    @property
    def size(self) -> int:
        return self.flushed + len(self.held)


class Logbook:
    """The log of one job, or what an earlier process kept of it."""

    def __init__(self, store: BlobStore, most_bytes: int = MOST_BYTES) -> None:
        self._list = Appended(store, "log")
        self._most = most_bytes
        self._read_again()

    def _read_again(self) -> None:
        self._kept: dict[Stream, _Kept] = {stream: _Kept() for stream in _STREAMS}
        self._is_over = False
        count = 0
        for at, raw in enumerate(self._list.records()):
            self._note(_STREAMS[raw[0] & 1], at, len(raw) - 1)
            count = at + 1
        self._list.cut(count)

    def _note(self, stream: Stream, record: int, size: int) -> None:
        kept = self._kept[stream]
        kept.starts.append(kept.flushed)
        kept.records.append(record)
        kept.flushed += size

    def size(self, stream: Stream) -> int:
        return self._kept[stream].size

    def write(self, stream: Stream, data: bytes) -> list[tuple[Stream, int, bytes]]:
        """Keep what was printed. What is kept of it, with its offset, to be sent: nothing beyond the bound."""
        if self._is_over or not data:
            return []
        room = self._most - _SPARE - self.size(stream)
        told: list[tuple[Stream, int, bytes]] = []
        if piece := data[: max(0, room)]:
            told.append((stream, self._hold(stream, piece), piece))
        if len(data) > room:
            self._is_over = True
            line = f"\n[no more of this log is kept: {stream} has {self._most} bytes]\n".encode()
            told.append(("stderr", self._hold("stderr", line), line))
        return told

    def say(self, line: str) -> list[tuple[Stream, int, bytes]]:
        """A line of ours, among what the job prints."""
        return self.write("stderr", f"[{line}]\n".encode())

    def _hold(self, stream: Stream, piece: bytes) -> int:
        kept = self._kept[stream]
        start = kept.size
        kept.held += piece
        while len(kept.held) >= PIECE_BYTES:
            self._flush(stream, PIECE_BYTES, durable=False)
        return start

    def _flush(self, stream: Stream, size: int, *, durable: bool) -> None:
        kept = self._kept[stream]
        piece = bytes(kept.held[:size])
        if not piece:
            return
        try:
            self._list.append(bytes((_STREAMS.index(stream),)) + piece, durable=durable)
        except (StoreFull, NoSuchBlob):
            # A log is no reason to end a job: from here on there is none.
            self._is_over = True
            kept.held.clear()
            return
        del kept.held[:size]
        self._note(stream, len(self._list) - 1, len(piece))

    def flush(self) -> int:
        """All of it is durable when this returns. How many records that are, to `rewind` to."""
        for stream in _STREAMS:
            self._flush(stream, PIECE_BYTES, durable=True)
        return len(self._list)

    def rewind(self, records: int) -> None:
        """Forget what came after a `flush`: it will be printed again."""
        self._list.cut(records)
        self._read_again()

    def read(self, stream: Stream, start: int) -> bytes:
        """A piece that begins there; empty at the end, and when the lease is over."""
        kept = self._kept[stream]
        if start >= kept.flushed:
            return bytes(kept.held[start - kept.flushed : start - kept.flushed + PIECE_BYTES])
        at = bisect_right(kept.starts, start) - 1
        try:
            raw = self._list.record(kept.records[at])
        except (NoSuchBlob, ValueError, OSError):
            return b""
        return raw[1 + start - kept.starts[at] :]
