"""A checker that never fires checks nothing: each has a bug planted that it must find."""

from typing import Any

import msgspec
import pytest

from clusterai.gateway.core.bills import Bills
from clusterai.gateway.core.book import Book
from clusterai.gateway.core.errands import Call, Errand
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.moneystate import Channel, Ended, Payout
from clusterai.gateway.core.payouts import PREFIX, Payouts, Withdraw
from clusterai.ledger.core.calls import Settle, Submit, Transfer
from clusterai.ledger.core.claims import ClaimBook
from clusterai.ledger.core.twin.channels import Channels
from clusterai.ledger.core.twin.court import Court
from clusterai.ledger.core.twin.state import Transaction
from clusterai.ledger.core.twin.token import Token
from clusterai.node.core.epochs import Epochs
from clusterai.node.core.leasebook import LeaseBook
from clusterai.node.core.leases import Made
from clusterai.protocol.ids import Address
from clusterai.protocol.messages import Pay
from clusterai.runtime.machine import Save, Send
from clusterai.runtime.simulator import Broken, Fault
from clusterai.validator.core.auditor import Auditor
from clusterai.validator.core.words import Check
from clusterai.work.kind import Findings
from tests.simulation.play import Scenario, play
from tests.simulation.scenarios.catalogue import SCENARIOS
from tests.simulation.world.providers import Provider
from tests.simulation.world.validators import Validator
from tests.simulation.world.world import Shape

QUIET = Scenario(kinds=(), shape=Shape(requests=12, busy_s=60))
SEEDS = range(4)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Any:
    return monkeypatch.setattr


PAYING_BACK = Scenario(kinds=(), shape=Shape(requests=4, busy_s=60, withdrawals=4))


def nothing(*_: Any) -> list[Any]:
    """In place of a method: does nothing."""
    return []


def breaks(why: str, scenario: Scenario = QUIET) -> None:
    """Some seed breaks with that promise."""
    told: list[str] = []
    for seed in SEEDS:
        try:
            play("mutant", scenario, seed)
        except Broken as broken:
            if why in broken.why:
                return
            told.append(broken.why)
    pytest.fail(f"no seed said {why!r}, but {told}")


def test_the_worlds_without_bugs_are_sound() -> None:
    """What the mutants change passes unchanged."""
    for seed in SEEDS:
        play("mutant", QUIET, seed)


def test_money_from_nothing_is_seen(plant: Any) -> None:
    """A settlement that pays one unit too much."""

    def settle_more(self: Channels, tx: Transaction, receiver: Address, token: Address) -> None:
        amount = self.matured(receiver, token, tx.now_s)
        if amount:
            self._token.move(tx, self._here, receiver, amount + 1)  # pyright: ignore[reportPrivateUsage]

    plant(Channels, "settle", settle_more)
    breaks("Channels holds what is in channels")


def test_a_balance_that_no_transfer_explains_is_seen(plant: Any) -> None:
    """A state that differs from its events."""
    honest = Token.move

    def move(self: Token, tx: Transaction, source: Address, to: Address, value: int) -> None:
        honest(self, tx, source, to, value)
        if tx.block.number:
            self._store.put(("balance", to), self.balance(to) + 1)  # pyright: ignore[reportPrivateUsage]

    plant(Token, "move", move)
    breaks("a balance is what its transfers sum to")


def test_payment_before_the_window_is_seen(plant: Any) -> None:
    """A hold that counts as matured at once."""

    def nothing_held(self: Channels, receiver: Address, token: Address, now_s: int) -> int:
        return 0

    plant(Channels, "held", nothing_held)

    def eager(self: Any, now_s: float) -> list[Any]:
        if self.barred or self.claimed_wei <= self.settled_wei or not self._free("settle", now_s):
            return []
        return self._submit("settle", Settle(self.terms.receiver, self.terms.token))

    plant(ClaimBook, "_settle", eager)
    breaks("nothing is paid twice or before its window is over")


def test_a_claim_beyond_the_commitment_is_seen(plant: Any) -> None:
    """Commitments that count double."""
    honest = Court.committed_total

    def generous(self: Court, provider: Address) -> int:
        return 2 * honest(self, provider) + 10**9

    plant(Court, "committed_total", generous)
    plant(ClaimBook, "committed_wei", property(lambda self: 10**9))
    breaks("a provider claims what it committed")


def test_a_voucher_above_the_charges_is_seen(plant: Any) -> None:
    """A gateway that promises one unit more than it charged."""
    honest = Meter.step

    def step(self: Meter, event: Any, now_s: float) -> list[Any]:
        def more(effect: Any) -> Any:
            match effect:
                case Send(to, Pay(order, voucher, signature)):
                    raised = msgspec.structs.replace(voucher, amount_wei=voucher.amount_wei + 1)
                    return Send(to, Pay(order, raised, signature))
                case _:
                    return effect

        return [more(effect) for effect in honest(self, event, now_s)]

    plant(Meter, "step", step)
    breaks("a voucher is the sum of its channel's charges")


def test_a_part_that_is_charged_before_the_rest_is_seen(plant: Any) -> None:
    """A gateway that takes the money of each part at once."""

    def at_once(self: Bills, errand: Errand) -> bool:
        return False

    plant(Bills, "waits", at_once)
    breaks("a charge waits for the rest of its request")


def test_a_failed_request_that_is_charged_is_seen(plant: Any) -> None:
    """A gateway that bills all that was made, shown or not."""

    def grasping(self: Bills, call: Call, shown: tuple[int, ...] | None, now_s: float) -> Ended | None:
        orders, call.orders = tuple(call.orders.values()), {}
        call.payer = "gateway"
        return Ended(orders[:-1], orders[-1:]) if orders else None

    plant(Bills, "abandon", grasping)
    breaks("a failed request is charged for what was shown", Scenario(shape=Shape(requests=40)))


def test_a_charge_that_waits_for_ever_is_seen(plant: Any) -> None:
    """A gateway that dies between two parts and never says who pays."""

    def forgotten(self: Bills) -> Ended | None:
        return None

    plant(Bills, "left_behind", forgotten)
    breaks("nothing waits after a restart", Scenario(kinds=(Fault.CRASH,), share=1, shape=Shape(requests=40)))


def test_an_account_that_pays_for_what_is_borne_is_seen(plant: Any) -> None:
    """Books that charge what they say the gateway bears."""
    honest = Book.apply

    def apply(self: Book, record: Any) -> Any:
        if isinstance(record, Ended) and record.borne:
            record = Ended((*record.billed, *record.borne), ())
        return honest(self, record)

    plant(Book, "apply", apply)
    breaks("an account is charged what was billed", Scenario(shape=Shape(requests=40)))


def test_an_answer_that_is_told_before_its_charge_is_saved_is_seen(plant: Any) -> None:
    """The order of effects is a promise."""
    honest = Meter.step

    def step(self: Meter, event: Any, now_s: float) -> list[Any]:
        return sorted(honest(self, event, now_s), key=lambda effect: isinstance(effect, Save))

    plant(Meter, "step", step)
    breaks("a voucher is the sum of its channel's charges")


def test_a_receipt_that_its_provider_does_not_keep_is_seen(plant: Any) -> None:
    """Sent, paid, and nowhere in the provider's journal."""
    honest = LeaseBook.step

    def step(self: LeaseBook, event: Any, now_s: float) -> list[Any]:
        effects = honest(self, event, now_s)
        return [it for it in effects if not (isinstance(it, Save) and isinstance(it.record, Made))]

    plant(LeaseBook, "step", step)
    breaks("its provider keeps the receipt of what it is paid")


def test_a_wrong_token_is_seen(plant: Any) -> None:
    """A provider that isn't named a villain, and edits."""
    honest = Provider.answer

    def answer(self: Provider, generation: Any) -> tuple[tuple[int, ...], str]:
        tokens, reason = honest(self, generation)
        return (tokens[0] ^ 1, *tokens[1:]), reason

    plant(Provider, "answer", answer)
    breaks("the client reads the model's very tokens")


def test_a_false_verdict_is_seen(plant: Any) -> None:
    """Validators whose engines find fraud everywhere."""

    def findings(self: Validator, check: Check) -> Findings:
        return Findings(1, 0, 20_000, -1)

    plant(Validator, "findings", findings)
    breaks("honest validators don't accuse the honest")


def test_a_conviction_of_one_who_could_answer_is_seen(plant: Any) -> None:
    """Validators that hear no opening, and a Court that doesn't see the answer."""
    plant(Auditor, "_relayed", nothing)
    plant(LeaseBook, "_relayed", nothing)
    plant(Epochs, "_answer", nothing)
    breaks("who could answer is not convicted")


def test_a_deposit_that_is_left_with_a_convict_is_seen(plant: Any) -> None:
    """A gateway that forgets what its channel never paid out."""
    plant(Channel, "unspent_wei", 0)
    scenario = msgspec.structs.replace(SCENARIOS["villain-EditsTokens"], kinds=())
    breaks("deposit with a barred provider isn't back", scenario)


def test_a_charge_that_is_never_paid_is_seen(plant: Any) -> None:
    """A provider that doesn't claim: the run doesn't come to its end."""
    plant(ClaimBook, "_claim", nothing)
    breaks("unfinished", Scenario(kinds=(), shape=Shape(requests=4, busy_s=30, settle_s=60)))


def test_a_withdrawal_owed_twice_is_seen(plant: Any) -> None:
    """A gateway that doesn't know a request again."""

    def forgetful(self: Meter, asked: Withdraw) -> None:
        step = self._step  # pyright: ignore[reportPrivateUsage]
        found = self.payouts.judge(asked.wish, asked.signature, step.chain_time_s())
        if isinstance(found, Payout):
            step.save(found)

    plant(Meter, "_withdraw", forgetful)
    breaks("a withdrawal is owed once", PAYING_BACK)


def test_a_withdrawal_paid_twice_is_seen(plant: Any) -> None:
    """Transfers that the chain doesn't know again, submitted under ever new names."""

    def due(self: Payouts, now_s: float) -> list[Submit]:
        unpaid = self._book.unpaid.items()  # pyright: ignore[reportPrivateUsage]
        return [
            Submit(f"{PREFIX}{name.hex()}", Transfer(Address(it.to), it.amount_wei)) for name, it in unpaid
        ]

    plant(Payouts, "due", due)
    plant(Payouts, "mined", nothing)
    plant(Meter, "_paid_out", nothing)
    breaks("a withdrawal is paid once", PAYING_BACK)
