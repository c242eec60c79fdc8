"""drand's pulses: recorded rounds of quicknet verify, and nothing else does."""

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_arkworks_bls12381 import G1Point, Scalar

from clusterai.audit.adapters.drand import NoPulse, fetch
from clusterai.audit.core.drand import FalsePulse, Pulse, call, is_signed, randomness
from clusterai.ledger.core.rules import QUICKNET


class Recorded(msgspec.Struct, frozen=True):
    """A round as quicknet's relays serve it."""

    round: int
    signature: str
    randomness: str

    def pulse(self) -> Pulse:
        return Pulse(self.round, bytes.fromhex(self.signature))


RECORDED = msgspec.json.decode(
    (Path(__file__).parents[2] / "vectors" / "drand.json").read_bytes(), type=list[Recorded]
)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: str(recorded.round))
def test_a_recorded_round_verifies(recorded: Recorded) -> None:
    """What the League of Entropy signed is accepted, and gives the randomness that it published."""
    assert randomness(QUICKNET, recorded.pulse()).hex() == recorded.randomness


def test_another_rounds_signature_is_refused() -> None:
    """A true signature doesn't serve for another round: nobody chooses among pulses."""
    for recorded in RECORDED:
        for other in RECORDED:
            if other.round != recorded.round:
                with pytest.raises(FalsePulse):
                    randomness(QUICKNET, Pulse(other.round, recorded.pulse().signature))


def test_points_that_nobody_signed_are_refused() -> None:
    """The identity, the negated and the doubled signature, and any multiple of the generator are no signatures."""
    true = G1Point.from_compressed_bytes(RECORDED[0].pulse().signature)
    for point in (G1Point.identity(), -true, true + true, G1Point(), G1Point() * Scalar(7)):
        with pytest.raises(FalsePulse):
            randomness(QUICKNET, Pulse(1, bytes(point.to_compressed_bytes())))


@given(st.integers(-(2**70), 2**70), st.binary(max_size=64))
def test_nonsense_is_refused_by_name(round_number: int, signature: bytes) -> None:
    """Whatever a relay sends, the answer is FalsePulse."""
    with pytest.raises(FalsePulse):
        randomness(QUICKNET, Pulse(round_number, signature))


@given(st.integers(QUICKNET.genesis_s // 60, 2**33), st.integers(60, 7_200))
def test_the_first_round_behind_an_epoch(epoch: int, epoch_s: int) -> None:
    """An epoch is drawn from by a round that was signed later than the margin after its end, and by no later one."""
    end_s = (epoch + 1) * epoch_s + QUICKNET.margin_s
    first = QUICKNET.round_of(epoch, epoch_s)
    assert QUICKNET.time_of(first) > end_s >= QUICKNET.time_of(first - 1)


def test_before_the_first_round_the_first_is_meant() -> None:
    """Rounds begin at 1, whatever the clock says."""
    assert QUICKNET.round_of(0, 15) == 1


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: str(recorded.round))
def test_what_is_brought_to_the_chain_is_the_same_point(recorded: Recorded) -> None:
    """A relay's 48 bytes become the four words that the contract takes, and those verify as well."""
    point = call(recorded.pulse()).signature
    words = b"".join(msgspec.structs.astuple(point))
    assert words[:16] == words[64:80] == bytes(16)
    assert is_signed(QUICKNET, recorded.round, words[16:64] + words[80:])
    assert is_signed(QUICKNET, recorded.round, words[16:64] + words[80:-1] + b"\0") is None


def answering(bodies: dict[str, tuple[int, bytes]]) -> httpx.AsyncClient:
    """A client whose relays, by host, answer with a status and a body."""

    def serve(request: httpx.Request) -> httpx.Response:
        status, body = bodies[request.url.host]
        return httpx.Response(status, content=body)

    return httpx.AsyncClient(transport=httpx.MockTransport(serve))


def body(recorded: Recorded, **changed: object) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(recorded), **changed})


def test_lying_and_broken_relays_are_passed_over() -> None:
    """The pulse comes from the first relay that tells the truth, whatever those before it said."""
    second = RECORDED[1]

    async def ask() -> None:
        async with answering(
            {
                "down": (503, b""),
                "garbled": (200, b"<html>"),
                "no-text": (200, b'{"round":1,"signature":"\xff"}'),
                "deep": (200, b'{"x":' + b"[" * 2_000 + b"]" * 2_000 + b"}"),
                "endless": (200, b" " * 5_000 + body(second)),
                "stale": (200, body(RECORDED[0])),
                "forging": (200, body(second, signature=RECORDED[0].signature)),
                "true": (200, body(second, randomness="00" * 32)),
            }
        ) as client:
            relays = [
                f"http://{host}"
                for host in ("down", "garbled", "no-text", "deep", "endless", "stale", "forging")
            ]
            pulse, random = await fetch(client, QUICKNET, second.round, [*relays, "http://true"])
            assert pulse == second.pulse()
            assert random.hex() == second.randomness, "what a relay says of the randomness is not read"
            with pytest.raises(NoPulse, match="forging"):
                await fetch(client, QUICKNET, second.round, relays)

    asyncio.run(ask())
