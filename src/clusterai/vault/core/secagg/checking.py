"""How a member checks, after a round, what the server published of it.

    server                                 member
    Published(transcript)          ─────>  signatures, seeds, its own claim and endorsement
                                   <─────  Wanted: chunks that it drew itself, after it saw the signed transcript
    Shown(openings)                ─────>  replays them
                                   <─────  Checked: nothing found, or the fault with its detail

Also an auditor who was no member can ask so. A server that doesn't show what is wanted has not been checked, and the member
says so; that it lied is proven only by what it signed.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clusterai.protocol.canonical import decode
from clusterai.protocol.ids import Digest
from clusterai.vault.core.secagg import vectors
from clusterai.vault.core.secagg.messages import MAX_LENGTH, Bytes32
from clusterai.vault.core.secagg.primitives import Primitives
from clusterai.vault.core.secagg.transcript import Fault, Opening, Transcript, fault, fault_for, replay

MOST_CHUNKS = 16


class _Part(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Published(_Part, frozen=True):
    transcript: Transcript


class Wanted(_Part, frozen=True):
    round: Bytes32
    chunks: Annotated[tuple[Annotated[int, Meta(ge=0, lt=MAX_LENGTH)], ...], Meta(max_length=MOST_CHUNKS)]


class Shown(_Part, frozen=True):
    round: Bytes32
    openings: Annotated[tuple[Opening, ...], Meta(max_length=MOST_CHUNKS)]


class Checked(_Part, frozen=True):
    """`code` is empty where nothing is wrong."""

    round: Bytes32
    code: Annotated[str, Meta(max_length=40)]
    detail: Annotated[str, Meta(max_length=400)]


_TO_CHECKER: Any = Published | Shown
_FROM_CHECKER: Any = Wanted | Checked
MAX_CHECK_BYTES = 32 * 1024 * 1024


def to_checker(data: bytes) -> Published | Shown:
    """Raises Malformed."""
    return decode(data, _TO_CHECKER, MAX_CHECK_BYTES)


def from_checker(data: bytes) -> Wanted | Checked:
    """Raises Malformed."""
    return decode(data, _FROM_CHECKER, MAX_CHECK_BYTES)


class Checker:
    """One round's check. `draw(below)` is a uniform number: the server must not guess it."""

    def __init__(
        self,
        round_id: bytes,
        endorsed: Digest | None,
        left_out: bool,
        primitives: Primitives,
        draw: Callable[[int], int],
        chunks: int = 3,
    ) -> None:
        self.round = round_id
        self.found: Fault | None = None
        self.passed = False
        self._endorsed, self._left_out = endorsed, left_out
        self._primitives, self._draw, self._chunks = primitives, draw, min(chunks, MOST_CHUNKS)
        self._transcript: Transcript | None = None
        self._wanted: tuple[int, ...] = ()

    def answer(self, frame: Published | Shown) -> Wanted | Checked:
        match frame:
            case Published(transcript):
                return self._read(transcript)
            case Shown(_, openings):
                return self._replay(openings)

    def _says(self, found: Fault | None) -> Checked:
        self.found = self.found or found
        self.passed = self.found is None
        return (
            Checked(self.round, "", "")
            if found is None
            else Checked(self.round, found.code, found.detail[:400])
        )

    def _read(self, transcript: Transcript) -> Wanted | Checked:
        if transcript.spec.round() != self.round:
            return self._says(Fault("round", "another round's transcript"))
        found = fault(transcript, self._primitives) or fault_for(transcript, self._endorsed)
        if found is None and self._left_out:
            found = Fault("left_out", "this vault gave its vector and was shown a roll without it")
        if found is not None:
            return self._says(found)
        if self._transcript is None:
            there = vectors.chunks(transcript.spec.length)
            wanted = {self._draw(there) for _ in range(self._chunks)}
            self._transcript, self._wanted = transcript, tuple(sorted(wanted))
        elif transcript != self._transcript:
            return self._says(Fault("equivocation", "two transcripts of one round, both signed"))
        return Wanted(self.round, self._wanted)

    def _replay(self, openings: tuple[Opening, ...]) -> Checked:
        if self._transcript is None:
            return Checked(self.round, "order", "openings before a transcript")
        if tuple(opening.chunk for opening in openings) != self._wanted:
            return self._says(Fault("withheld", "not the chunks that were drawn"))
        for opening in openings:
            found = replay(self._transcript, opening, self._primitives)
            if found is not None:
                return self._says(found)
        return self._says(None)
