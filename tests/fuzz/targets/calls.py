"""Parts of calls as a peer may cut them, and answers that pretend to be packed bytes."""

import msgspec

from clusterai.protocol.calls import PART_BYTES, Gathered, cut
from clusterai.protocol.canonical import Malformed
from clusterai.work.packed import Unpackable, bytes_of, tokens_of

MOST_BYTES = 64
_parts = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]])
_tokens = msgspec.msgpack.Decoder(list[int])


def once(data: bytes) -> bool:
    """Gathered parts are never more than allowed; packed bytes are spelled in one way."""
    if data[:1] == b"p":
        return _gather(data[1:])
    try:
        tokens = _tokens.decode(data[1:])
    except (msgspec.DecodeError, RecursionError):
        return False
    try:
        packed = bytes_of(tokens)
    except Unpackable:
        return False
    assert tokens_of(packed) == tuple(tokens)
    return True


def _gather(data: bytes) -> bool:
    try:
        parts = _parts.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    gathered = Gathered(MOST_BYTES)
    for at, (part, many, body) in enumerate(parts):
        try:
            whole = gathered.add(part, many, body)
        except Malformed:
            return False
        finally:
            assert gathered.held_bytes <= MOST_BYTES
        if whole is not None:
            assert whole == b"".join(it[2] for it in parts[: at + 1])
            return True
    return False


def seeds() -> list[bytes]:
    long = cut(bytes(2 * PART_BYTES + 5))
    assert [len(it) for it in long] == [PART_BYTES, PART_BYTES, 5]
    calls = [[(0, 1, b"all")], [(0, 2, b"two"), (1, 2, b"parts")], [(0, 1, b"")]]
    answers = [tokens_of(it) for it in (b"", b"a", b"packed bytes", bytes(9))]
    encode = msgspec.msgpack.encode
    return [b"p" + encode(it) for it in calls] + [b"t" + encode(it) for it in answers]
