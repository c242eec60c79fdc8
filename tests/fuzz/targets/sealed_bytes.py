"""Ciphertexts, requests, shapes and weights for sealed inference as a peer may send them; what passes is evaluated by the library."""

import numpy as np

from clusterai.protocol.canonical import Malformed
from clusterai.work.packed import tokens_of
from clusterai.work.sealed.adapters.ckks import Scheme, Transparent
from clusterai.work.sealed.check import wrong
from clusterai.work.sealed.core.model import BadModel, read_shape
from clusterai.work.sealed.core.security import RINGS
from clusterai.work.sealed.core.wire import NoCiphertext
from clusterai.work.sealed.spec import Sealed, decode_sealed

_ring = RINGS[2_048]
_scheme = Scheme(_ring)
_weights = _scheme.encoded(np.arange(2_048) - 5)
_base = (
    np.random.default_rng(3)
    .integers(0, 2**40, 4_096)
    .astype("<u8")
    .view(np.uint8)
    .reshape(-1, 8)[:, :7]
    .tobytes()
)
_EDIT = 9
"""Bytes of one: a residue's place and its seven bytes. A fuzzer's inputs are shorter than a ciphertext."""


def once(data: bytes) -> bool:
    """Either refused with a word, or a ciphertext that the library multiplies into one of ours."""
    match data[:1]:
        case b"r":
            return _request(data[1:])
        case b"s":
            try:
                read_shape(data[1:])
            except BadModel:
                return False
            return True
        case _:
            return _ciphertext(data[1:])


def _request(data: bytes) -> bool:
    try:
        request = decode_sealed(data)
    except Malformed:
        return False
    assert request.canonical() == data
    return True


def _ciphertext(data: bytes) -> bool:
    edited = bytearray(_base)
    for at in range(0, len(data) - _EDIT + 1, _EDIT):
        place = 7 * (int.from_bytes(data[at : at + 2]) % (2 * _ring.degree))
        edited[place : place + 7] = data[at + 2 : at + _EDIT]
    whole = bytes(edited) if len(data) % _EDIT == 0 else data
    try:
        product = _scheme.product_sum([_scheme.loaded(whole)], [_weights])
    except (NoCiphertext, Transparent):
        return False
    request = Sealed(bytes(32), 2_048, (whole,), 1)
    assert wrong(request, tokens_of(product), "stop") is None
    return True


def seeds() -> list[bytes]:
    request = Sealed(b"\x01" * 32, 2_048, (_base,), 1).canonical()
    shape = b'{"features":["a"],"outputs":["b"],"centre":[0.0],"spread":[1.0],"bound":4.0,"link":"identity",'
    shape += b'"order":1,"degree":2048,"input_bits":20,"weight_bits":12}'
    return [b"c", b"c\x00\x01" + bytes(6) + b"\x01", b"c\x00\x01" + b"\xff" * 7, b"r" + request, b"s" + shape]
