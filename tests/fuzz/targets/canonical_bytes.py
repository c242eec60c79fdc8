"""What else is digested, opened or carried as canonical bytes: requests, answers, openings, evidence."""

from typing import Any

from clusterai.audit.core.evidence import Bundle, Case, ListCase
from clusterai.audit.core.opening import Opening
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.messages import Answer, Transcript
from clusterai.work import embedding, inference
from tests.fuzz.vectors import entries

KINDS: dict[str, Any] = {
    "Answer": Answer,
    "Transcript": Transcript,
    "ReceiptOpening": Opening,
    "Bundle": Bundle,
    "Case": Case,
    "ListCase": ListCase,
}
REQUESTS: dict[str, Any] = {"Generation": inference.KIND, "Embedding": embedding.KIND}
NAMES = [*KINDS, *REQUESTS]


def once(data: bytes) -> bool:
    """The first byte names what the rest is to be."""
    name, body = NAMES[data[0] % len(NAMES)] if data else NAMES[0], data[1:]
    try:
        if name in REQUESTS:
            kind = REQUESTS[name]
            value = kind.decode(body)
            units = kind.recount(value, ())
            assert all(it >= 0 for it in units)
        else:
            value = canonical.decode(body, KINDS[name])
    except Malformed:
        return False
    assert canonical.encode(value) == body
    return True


def seeds() -> list[bytes]:
    found = entries("frames.json", "values")
    return [bytes((NAMES.index(it["type"]),)) + bytes.fromhex(it["bytes"][2:]) for it in found]
