"""Whatever a peer sends is either one frame of ours, byte for byte, or `Malformed`: nothing else happens."""

from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol import canonical
from clusterai.protocol.messages import (
    Announce,
    AskEpoch,
    Cancel,
    EpochOpened,
    Finished,
    Frame,
    ModelOffer,
    OpenChannel,
    Pay,
    Ping,
    Refused,
    Relay,
    Relayed,
    Tokens,
    Work,
)
from clusterai.protocol.statements import ChannelConfig, Order, Receipt, Voucher
from clusterai.runtime.core.greeting import Greeted, Hello, TurnedAway, Welcome, hear

FRAME = cast("type[Frame]", Frame)
RELAYED = cast("type[Relayed]", Relayed)
ADDRESS, DIGEST, SIGNATURE = bytes(20), bytes(32), bytes(65)
ORDER = Order(ADDRESS, ADDRESS, DIGEST, DIGEST, DIGEST, 1, 2, 7, 99, DIGEST)
RECEIPT = Receipt(DIGEST, ADDRESS, ADDRESS, DIGEST, DIGEST, 3, 4, 5, 6)
FRAMES: list[msgspec.Struct] = [
    Announce((ModelOffer(DIGEST, "m", 1, 2, 4),), 0, 0, False),
    OpenChannel(ChannelConfig(ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, 60, DIGEST)),
    Work(ORDER, SIGNATURE, "inference", b"request"),
    Tokens(DIGEST, 0, (1, 2), (-5, -6), (((1, -5),), ())),
    Finished(RECEIPT, SIGNATURE, "stop", 0),
    Refused(DIGEST, "busy", "later", 500),
    Cancel(DIGEST),
    Pay(DIGEST, Voucher(DIGEST, 5), SIGNATURE),
    Ping(1, 2, 3),
    Relay(ADDRESS, ADDRESS, b"sealed"),
]


@given(st.binary(max_size=300))
def test_noise_is_malformed_or_a_frame(data: bytes) -> None:
    """Arbitrary bytes never raise anything but `Malformed`, as frames, relayed bodies and greetings."""
    for decode in (
        lambda: canonical.decode(data, FRAME),
        lambda: canonical.decode(data, RELAYED),
        lambda: hear(data),
    ):
        try:
            value = decode()
        except canonical.Malformed:
            continue
        assert canonical.encode(value) == data


@given(st.sampled_from(FRAMES), st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4))
def test_a_damaged_frame_is_malformed_or_another_frame(
    frame: msgspec.Struct, at: int, put: bytes, cut: int
) -> None:
    """A frame with bytes replaced, inserted or removed decodes to exactly what its bytes say, or not at all."""
    data = canonical.encode(frame)
    at %= len(data)
    damaged = data[:at] + put + data[at + cut :]
    try:
        value = canonical.decode(damaged, FRAME)
    except canonical.Malformed:
        return
    assert canonical.encode(value) == damaged


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.binary(max_size=40)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=9), inner, max_size=6),
        max_leaves=20,
    ),
    st.sampled_from([type(frame).__name__ for frame in FRAMES]),
)
def test_a_frames_name_on_other_content_is_malformed(content: object, name: str) -> None:
    """The right tag doesn't make the wrong fields pass."""
    fields = cast("dict[str, object]", content) if isinstance(content, dict) else {"order": content}
    data = msgspec.msgpack.encode({**fields, "type": name}, order="deterministic")
    try:
        value = canonical.decode(data, FRAME)
    except canonical.Malformed:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_each_frame_comes_back_as_it_was(frame: msgspec.Struct) -> None:
    """Encoding and decoding are inverse."""
    assert canonical.decode(canonical.encode(frame), FRAME) == frame


def test_relayed_and_greeting_messages_come_back_as_they_were() -> None:
    """What stands in a relay or opens a link round-trips, and is no frame."""
    relayed = [
        AskEpoch(ADDRESS, ADDRESS, 1, (0, 2), DIGEST, SIGNATURE),
        EpochOpened(ADDRESS, 1, (RECEIPT,), (SIGNATURE,), ((0, b"sealed"),)),
    ]
    for message in relayed:
        assert canonical.decode(canonical.encode(message), RELAYED) == message
    for message in (Hello(1, DIGEST), TurnedAway("full", "later"), Welcome()):
        assert hear(canonical.encode(message)) == message
        with pytest.raises(canonical.Malformed):
            canonical.decode(canonical.encode(message), FRAME)
    assert Greeted


def test_deep_nesting_is_malformed() -> None:
    """A million nested arrays end in `Malformed`, not in a crash."""
    for decode in (lambda: canonical.decode(b"\x91" * 1_000_000, FRAME), lambda: hear(b"\x91" * 1000)):
        with pytest.raises(canonical.Malformed):
            decode()
