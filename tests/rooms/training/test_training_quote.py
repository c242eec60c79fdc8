"""What a run can cost at most, said before it begins: with that much no order of it is too dear, and with less the last one may be."""

import asyncio

import pytest

from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.work.training.adapters.parties import Lost, Paid
from clusterai.work.training.adapters.rounds import MOST_ASKED, RoundFailed, Rounds
from clusterai.work.training.core import privacy, quote
from clusterai.work.training.spec import Good, Round, Run
from clusterai.work.uses import milli

MILLI, USE = 10_000, 20_000_000
DELTA_PICO = 10**7


@pytest.mark.parametrize("rounds", [1, 3, 20])
@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_the_quote_lets_every_order_of_a_run_through(rounds: int, epsilon: float):
    """Each order may cost as much as a first one, of an even share of what is left; the quote is the least that does, to a hundredth or so."""
    delta = DELTA_PICO / 10**12
    multiplier = privacy.multiplier_for(epsilon, rounds + (rounds > 1), delta)
    # More by a hundredth, for rounding on the grid: `Agreement` orders this much.
    noise = int(1000 * multiplier) + 2
    noise += noise // 100 + 1
    prices = [(MILLI, USE), (0, USE), (MILLI // 2, 0)]
    spent = [privacy.epsilon_micro(noise, it, DELTA_PICO) for it in range(rounds + 1)]

    def charged(price: tuple[int, int], micro: int) -> int:
        return price[0] * milli(micro) + price[1]

    def goes_through(left: int) -> bool:
        for number in range(rounds):
            # In the worst case all vaults ask what the dearest asks.
            if left // len(prices) < charged(prices[0], spent[1]):
                return False
            left -= len(prices) * charged(prices[0], spent[number + 1] - spent[number])
        return True

    quoted = quote.most_wei(prices, rounds, epsilon, delta)
    assert goes_through(quoted)
    assert not goes_through(quoted * 9 // 10)


def test_without_noise_vaults_are_asked_to_evaluate_too():
    """Two uses a round, each at its price, and ε costs nothing."""
    assert quote.most_wei([(MILLI, USE)] * 3, 5, None, 1e-5) == 3 * 10 * USE
    assert quote.most_wei([], 5, None, 1e-5) == 0


class Dear:
    """A vault behind a gateway that has no offer for what an order may cost."""

    def __init__(self, at: int, code: str) -> None:
        self.name, self.code = f"vault-{at}", code
        self.subject = self.grant = Digest(bytes([at]) * 32)
        self.signer = Address(bytes([at]) * 20)
        self.network = Domain("ClusterAI", "1", 31337, Address(bytes(20)))
        self.orders = 0

    async def call(self, data: bytes) -> bytes:
        return canonical.encode(Good())

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        self.orders += 1
        raise Lost(f"no more than {most_wei} wei", self.code)


@pytest.mark.parametrize(("code", "final"), [("too_dear", True), ("provider_lost", False)])
def test_a_round_that_is_too_dear_is_ordered_once(code: str, *, final: bool):
    """Another would be refused by the same words; one that was lost on the way is worth another."""
    parties = [Dear(at, code) for at in (1, 2, 3)]
    run = Run(
        nonce=bytes(32),
        app=Digest(bytes(32)),
        requester=Address(bytes(20)),
        config=b"",
        weight="num-examples",
        subjects=tuple(bytes(it.subject) for it in parties),
        members=tuple(bytes(it.signer) for it in parties),
        norm_micro=10**6,
        noise_milli=0,
        delta_pico=0,
        blocks=1,
        masked=False,
    )
    rounds = Rounds(run, Key(bytes(31) + b"\1"), parties)
    with pytest.raises(RoundFailed, match="no more than 10 wei") as failed:
        asyncio.run(rounds.perform(0, b"", "train", "1", [it.subject for it in parties], 30))
    assert failed.value.final is final
    assert {it.orders for it in parties} == {1 if final else MOST_ASKED}
