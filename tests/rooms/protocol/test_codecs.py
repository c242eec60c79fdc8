"""Every decoder of the protocol: a stranger's bytes are one value, spelled in the one way, or `Malformed`."""

import contextlib
import zlib
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterai.audit.core.evidence import Bundle, Case, ListCase
from clusterai.audit.core.opening import (
    MAX_PART_BYTES,
    PART_BYTES,
    ForAnother,
    Opening,
    inflate,
    pack_answer,
    unpack_answer,
)
from clusterai.protocol import canonical, merkle
from clusterai.protocol.canonical import MAX_FRAME_BYTES, Malformed
from clusterai.protocol.ids import BadId, Digest, address, digest
from clusterai.protocol.messages import Answer, Frame, Relayed, Transcript
from clusterai.protocol.money import BadAmount, parse, show
from clusterai.protocol.signing import BadSignature, Key, recover, signed_by
from clusterai.protocol.statements import (
    ChannelConfig,
    Clearance,
    Delegation,
    Greeting,
    Order,
    Receipt,
    Verdict,
    Voucher,
)
from clusterai.work.inference import Generation
from tests.rooms.protocol.drawn import damaged, values

KINDS: list[Any] = [
    Frame,
    Relayed,
    Transcript,
    Answer,
    Opening,
    Bundle,
    Case,
    ListCase,
    Order,
    Receipt,
    Voucher,
    Verdict,
    Clearance,
    Greeting,
    Delegation,
    ChannelConfig,
]
DECODED: list[Any] = [*KINDS, Generation]

DEEP = b"\x91" * 5_000
WIDE = b"\xdd\xff\xff\xff\xff"
HUGE_MAP = b"\xdf\xff\xff\xff\xff"
HUGE_BYTES = b"\xc6\xff\xff\xff\xff"


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_survives_its_bytes(kind: Any) -> None:
    """decode(encode(value)) == value, and equal values have equal bytes."""

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(values(kind))
    def survives(value: msgspec.Struct) -> None:
        data = canonical.encode(value)
        again = canonical.decode(data, kind)
        assert again == value
        assert canonical.encode(again) == data

    survives()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_are_malformed_or_mean_something_else(kind: Any) -> None:
    """No second spelling of a value is ever taken, whatever happens to its bytes."""

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def damages(data: st.DataObject) -> None:
        original = canonical.encode(data.draw(values(kind)))
        heard = data.draw(damaged(original))
        try:
            value = canonical.decode(heard, kind)
        except Malformed:
            return
        assert canonical.encode(value) == heard

    damages()


@given(st.binary(max_size=400), st.sampled_from(DECODED))
def test_noise_raises_nothing_but_malformed(data: bytes, kind: Any) -> None:
    """Arbitrary bytes are a value or Malformed, for every kind."""
    try:
        value = canonical.decode(data, kind)
    except Malformed:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize("kind", DECODED)
@pytest.mark.parametrize("data", [DEEP, WIDE, HUGE_MAP, HUGE_BYTES, b"", b"\xc1", b"\x91" * 10_000_000])
def test_bombs_are_defused(kind: Any, data: bytes) -> None:
    """Deep nesting and lengths that promise gigabytes are refused; reading them allocates nothing."""
    with pytest.raises(Malformed):
        canonical.decode(data, kind)


def test_more_than_a_frame_is_refused_unread() -> None:
    """The size is looked at first."""
    with pytest.raises(Malformed, match="the limit is"):
        canonical.decode(bytes(MAX_FRAME_BYTES + 1), Frame)  # type: ignore[arg-type]


@given(st.binary(max_size=300))
def test_inflating_noise_is_bounded(data: bytes) -> None:
    """A stranger's deflated bytes are inflated or Malformed."""
    try:
        plain = inflate(data)
    except Malformed:
        return
    assert len(plain) <= PART_BYTES


def test_a_deflate_bomb_is_cut_off() -> None:
    """24 kB that would inflate to 24 MB are refused after 24 kB; a full part isn't."""
    with pytest.raises(Malformed):
        inflate(zlib.compress(bytes(24_000_000), 9))
    with pytest.raises(Malformed):
        inflate(zlib.compress(bytes(PART_BYTES + 1), 9))
    for full in (bytes(PART_BYTES), Random(1).randbytes(PART_BYTES)):
        assert inflate(zlib.compress(full, 9)) == full


def test_a_part_that_doesnt_deflate_fits_the_court() -> None:
    """Noise grows by a few bytes; sealing and the mark take 49 more."""
    assert len(zlib.compress(Random(1).randbytes(PART_BYTES), 9)) + 49 <= MAX_PART_BYTES


@given(values(Opening), st.booleans())
@settings(max_examples=30)
def test_an_answer_on_chain_survives_packing(opening: Any, sealed: bool) -> None:
    """What is packed for the Court comes out as it went in; sealed to another, it doesn't come out at all."""
    packed = pack_answer(opening, (lambda plain: plain[::-1]) if sealed else None)
    assert unpack_answer(packed, lambda box: box[::-1]) == opening
    if sealed:
        with pytest.raises(ForAnother):
            unpack_answer(packed, lambda box: None)


@given(st.binary(max_size=200))
def test_unpacking_noise_is_malformed_or_for_another(data: bytes) -> None:
    """The bytes of a challenge's answer come from an accused provider."""
    for opened in (None, data):
        try:
            unpack_answer((data, data), lambda box, opened=opened: opened)
        except (Malformed, ForAnother):
            continue


# --- signatures ---

KEY = Key(bytes(31) + b"\x07")
SOME = Digest(bytes(range(32)))


@given(st.binary(min_size=60, max_size=70))
def test_noise_is_nobodys_signature(signature: bytes) -> None:
    """Recovering from noise gives some key or BadSignature, never anybody in particular."""
    with contextlib.suppress(BadSignature):
        recover(SOME, signature)
    assert not signed_by(KEY.address, SOME, signature)


@given(st.binary(min_size=32, max_size=32), st.data())
def test_only_the_signature_itself_is_taken(raw: bytes, data: st.DataObject) -> None:
    """A changed signature is not the signer's, and the malleable twin (high s) is refused outright."""
    signed = Digest(raw)
    signature = KEY.sign(signed)
    assert signed_by(KEY.address, signed, signature)
    assert KEY.sign(signed) == signature
    changed = data.draw(damaged(signature))
    assert changed == signature or not signed_by(KEY.address, signed, changed)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    twin_s = (order - int.from_bytes(signature[32:64])).to_bytes(32)
    with pytest.raises(BadSignature):
        recover(signed, signature[:32] + twin_s + bytes((55 - signature[64],)))


def test_a_key_does_not_show_itself() -> None:
    """Neither repr nor str of a key hold its secret."""
    assert KEY.secret().hex() not in repr(KEY) + str(KEY)


# --- merkle ---

_leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


@given(_leaves, st.data())
def test_a_proof_fits_its_place_alone(leaves: list[Digest], data: st.DataObject) -> None:
    """Every leaf proves its own position of its own count, and no other."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, path = merkle.root(leaves), merkle.proof(leaves, index)
    assert merkle.verify(root, leaves[index], index, len(leaves), path)
    for other in range(len(leaves)):
        if leaves[other] != leaves[index]:
            assert not merkle.verify(root, leaves[index], other, len(leaves), path)
            assert not merkle.verify(root, leaves[other], index, len(leaves), path)
    assert not merkle.verify(root, leaves[index], len(leaves), len(leaves), path)
    assert not merkle.verify(root, leaves[index], -1, len(leaves), path)
    assert not merkle.verify(root, leaves[index], index, len(leaves), (*path, Digest(bytes(32))))


@given(_leaves, st.integers(-5, 50), st.integers(0, 2**32), st.lists(st.binary(max_size=40), max_size=8))
def test_noise_proves_nothing(leaves: list[Digest], index: int, count: int, path: list[Digest]) -> None:
    """Any path, index and count: a refusal, unless it is the proof itself."""
    root = merkle.root(leaves)
    right = 0 <= index < len(leaves) == count and tuple(path) == merkle.proof(leaves, index)
    assert merkle.verify(root, leaves[0], index, count, path) == (right and leaves[index] == leaves[0])


def test_an_inner_node_is_no_leaf() -> None:
    """The node above two leaves can't pose as a leaf of a smaller tree."""
    leaves = [Digest(bytes([n]) * 32) for n in range(2)]
    root = merkle.root(leaves)
    assert not merkle.verify(root, root, 0, 1, ())


# --- what people write ---


@given(st.text(max_size=60))
def test_ids_and_amounts_as_people_write_them(text: str) -> None:
    """Text is parsed or refused with a named error."""
    for read, error in ((address, BadId), (digest, BadId), (parse, BadAmount)):
        try:
            read(text)
        except error:
            continue


@pytest.mark.parametrize("text", ["1e999999", "9e9999999", "-1", "nan", "inf", "1e-10", "9223372037", ""])
def test_amounts_that_cannot_be_are_refused(text: str) -> None:
    """Neither more than can exist nor finer than the smallest unit, and no exponent keeps the parser busy."""
    with pytest.raises(BadAmount):
        parse(text)


@given(st.integers(0, 2**63 - 1))
def test_amounts_are_never_shown_as_nothing(amount: int) -> None:
    """Only zero looks like zero."""
    assert (show(amount) == "0 CLAI") == (amount == 0)
