"""Votes read back from the data of transactions: what the Court would read, and never more than bytes of a stranger."""

from eth_abi import abi
from hypothesis import given
from hypothesis import strategies as st

from clusterai.ledger.core import calls
from clusterai.ledger.core.abi import MAX_VOTE_BYTES, Codec
from clusterai.ledger.core.deploy import Addresses
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import EPOCH_LIST, Verdict

AT = Addresses(*(Address(bytes([number]) * 20) for number in range(len(Addresses.__struct_fields__))))
CODEC = Codec(AT)
KINDS = ("(address,uint64,uint32,bytes32,uint8,bytes32)", "bytes32[]", "bytes")

digests = st.binary(min_size=32, max_size=32).map(Digest)
verdicts = st.builds(
    Verdict,
    st.binary(min_size=20, max_size=20),
    st.integers(0, 2**40 - 1),
    st.integers(0, EPOCH_LIST),
    digests,
    st.integers(0, 255),
    digests,
)
votes = st.builds(
    calls.Vote, verdicts, st.lists(digests, max_size=32).map(tuple), st.binary(min_size=65, max_size=65)
)


@given(votes)
def test_a_vote_comes_out_as_it_went_in(vote: calls.Vote) -> None:
    """Encoded for the Court and read back, also with bytes behind it that the Court wouldn't look at."""
    _, data = CODEC.encode(vote)
    assert CODEC.vote(data) == vote
    assert CODEC.vote(data + b"and so on") == vote


@given(votes, st.data())
def test_another_encoding_of_a_vote_hides_nothing(vote: calls.Vote, data: st.DataObject) -> None:
    """Arrays may stand anywhere behind the head, and padding may hold anything: the contract doesn't mind."""
    _, plain = CODEC.encode(vote)
    gap = 32 * data.draw(st.integers(0, 4))
    head, tail = plain[4 : 4 + 8 * 32], plain[4 + 8 * 32 :]
    moved = [int.from_bytes(head[at : at + 32]) + gap for at in (6 * 32, 7 * 32)]
    shifted = head[: 6 * 32] + b"".join(it.to_bytes(32) for it in moved) + bytes([0xEE]) * gap + tail
    dirty = shifted[:-1] + b"\xff"
    assert CODEC.vote(plain[:4] + dirty) == vote


@given(st.binary(max_size=600), st.booleans())
def test_noise_is_no_vote(noise: bytes, selected: bool) -> None:
    """Whatever stands in a stranger's transaction is a vote or nothing."""
    selector = CODEC.encode(calls.Vote(VERDICT, (), bytes(65)))[1][:4]
    CODEC.vote((selector if selected else b"") + noise)


VERDICT = Verdict(bytes(20), 1, 2, bytes(32), 2, bytes(32))


def test_what_no_validator_could_have_signed_is_passed_over() -> None:
    """Other calls, signatures of another length, epochs beyond all time, and data of absurd length."""
    _, data = CODEC.encode(calls.Vote(VERDICT, (), bytes(65)))
    assert CODEC.vote(data) is not None
    assert CODEC.vote(CODEC.encode(calls.Tick())[1]) is None
    assert CODEC.vote(CODEC.encode(calls.Vote(VERDICT, (), bytes(64)))[1]) is None
    late = abi.encode(KINDS, ((bytes(20), 2**40, 2, bytes(32), 2, bytes(32)), (), bytes(65)))
    assert CODEC.vote(data[:4] + late) is None
    assert CODEC.vote(data + bytes(MAX_VOTE_BYTES)) is None
    assert CODEC.vote(b"") is None
