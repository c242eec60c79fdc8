"""One value, one byte string: what is digested, signed, journaled and sent.

Messages are frozen `msgspec.Struct`s. Their canonical bytes are MessagePack with fields in the order of the
definition, map keys sorted and no floats, so that two honest machines can never digest the same value to
different bytes. Decoding is strict: size first, then shape, then a round trip that refuses every second
spelling of the same value.
"""

from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from clusterai.protocol.ids import Digest

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""A peer may not make us hold more than this for one message; a 32k-token prompt is 0.2 MB."""


T = TypeVar("T")


class Malformed(ValueError):
    """The peer's bytes are not a message of the protocol: {why}."""


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(value: msgspec.Struct) -> bytes:
    return _encoder.encode(value)


def digest(value: msgspec.Struct) -> Digest:
    """BLAKE3 of the canonical bytes."""
    return Digest(blake3(_encoder.encode(value)).digest())


def content_digest(data: bytes) -> Digest:
    return Digest(blake3(data).digest())


def decode(data: bytes | bytearray | memoryview, kind: type[T], limit: int = MAX_FRAME_BYTES) -> T:
    """Decode a peer's bytes into `kind` (a struct or a tagged union of structs).

    Raises:
        Malformed: longer than `limit` bytes, not MessagePack, not of that shape, or not canonical.
    """
    if len(data) > limit:
        raise Malformed(f"{len(data)} bytes, the limit is {limit}: send less in one message")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value = decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
    if _encoder.encode(value) != bytes(data):
        raise Malformed(
            "not the canonical encoding: encode with sorted maps, shortest integers and no defaults"
        )
    return value
