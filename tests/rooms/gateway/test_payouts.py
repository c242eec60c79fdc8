"""Unspent credit goes back on chain, once; played against the token's twin, with crashes between any two effects."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterai.gateway.core.errands import Terms
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.moneystate import KEEP_PAYOUT_S, Payout, wallet_account
from clusterai.gateway.core.payouts import PREFIX, Refusal, Withdraw
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.rules import LOCAL
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import Routing
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.withdrawal import Withdrawal
from clusterai.runtime.machine import Save
from tests.rooms.gateway.conftest import ACCOUNT, GATEWAY, HOT, NETWORK, PARTY, START_S

World = Any

WALLET = Key(b"\x77" * 32)
OWN = wallet_account(WALLET.address)
STRANGER = Key(b"\x78" * 32)
HOME = Address(b"\x79" * 20)
LEAST_WEI = Terms().least_payout_wei
MOST_AN_HOUR = Terms().payouts_an_hour
FUNDED = 50 * LEAST_WEI
NOW = BlockContext(1, int(START_S), bytes(32))


def wish(account: Digest = OWN, most_wei: int = 2**62, nonce: int = 1, **other: Any) -> Withdrawal:
    fields: dict[str, Any] = {
        "gateway": GATEWAY,
        "account": account,
        "to": HOME,
        "most_wei": most_wei,
        "expires_s": int(START_S) + 600,
        "nonce": nonce.to_bytes(32),
    }
    return Withdrawal(**{**fields, **other})


def signed(asked: Withdrawal, by: Key = WALLET) -> Withdraw:
    return Withdraw(asked, by.sign(asked.name(NETWORK)))


class Ledger:
    """The token's twin, where the gateway's hot key holds the supply."""

    def __init__(self) -> None:
        names = Addresses.__struct_fields__
        at = {name: Address(bytes([at + 1]) * 20) for at, name in enumerate(names)} | {"token": PARTY.token}
        self.twin = TwinChain(31415, Addresses(**at), HOT.address, LOCAL)

    def mine(self, submit: Submit) -> Mined | Reverted:
        found = self.twin.execute(submit.call, HOT.address, NOW)
        return (
            Reverted(submit.key, found.reason)
            if isinstance(found, Refused)
            else Mined(submit.key, ZERO_DIGEST, 1)
        )

    def paid_wei(self) -> int:
        return self.twin.token.balance(HOME)


@pytest.fixture
def rich(opened: World) -> World:
    """The wallet's own account has credit, and the wallet put as much on the account of the tests."""
    rich_with(opened)
    return opened


def rich_with(world: World) -> None:
    world.chain(
        events.Funded(GATEWAY, OWN, STRANGER.address, FUNDED),
        events.Funded(GATEWAY, ACCOUNT, WALLET.address, FUNDED),
    )


def payouts(world: World) -> list[Submit]:
    return [it for it in world.of(Submit) if it.key.startswith(PREFIX)]


def judged(world: World, asked: Withdraw) -> Payout | Refusal:
    return world.meter.payouts.judge(asked.wish, asked.signature, world.now_s)


def refused(world: World, asked: Withdraw) -> str:
    """The code of the refusal; nothing was saved or submitted for it."""
    found = judged(world, asked)
    assert isinstance(found, Refusal)
    assert world.step(asked) == []
    return found.code


def test_a_wallet_gets_the_rest_of_its_credit_once(rich: World):
    """The credit is gone before the chain is asked; the same request again, and the chain's answer twice, change nothing."""
    chain, asked = Ledger(), signed(wish())
    saved, submit = rich.step(asked)
    assert isinstance(saved, Save)
    assert rich.meter.book.account(OWN).credit_wei == 0
    assert rich.step(asked) == []
    rich.step(chain.mine(submit))
    rich.step(Mined(submit.key, ZERO_DIGEST, 1))
    assert chain.paid_wei() == FUNDED
    rich.wait(30)
    assert payouts(rich) == []
    assert rich.meter.book.unpaid == {}


def test_the_chain_pays_a_withdrawal_once_even_if_the_outbox_was_lost(rich: World):
    """Submitted anew after a crash, the transfer is refused for its used nonce: that counts as paid."""
    chain = Ledger()
    rich.step(signed(wish()))
    [first] = payouts(rich)
    assert isinstance(chain.mine(first), Mined)
    rich.crash()
    rich.wait(1)
    [second] = payouts(rich)
    again = chain.mine(second)
    assert isinstance(again, Reverted)
    rich.step(again)
    assert chain.paid_wei() == FUNDED
    assert rich.meter.book.unpaid == {}


def test_a_used_nonce_is_believed_when_it_is_deep_enough(rich: World):
    """On a chain that reorganises, the block that used it may still be undone, and the transfer with it."""
    rich.step(signed(wish()))
    party = msgspec.structs.replace(PARTY, confirmations=2)
    meter = Meter(party, Directory(), Routing(), Terms())
    decoder = msgspec.msgpack.Decoder(meter.RECORDS)
    meter.restore(decoder.decode(record) for record in rich.journal)
    [submit] = meter.payouts.due(rich.now_s)
    used = Reverted(submit.key, "ERC3009UsedAuthorization")
    for block, paid in ((10, False), (11, False), (12, True)):
        meter.step(events.Block(block, int(rich.now_s)), rich.now_s)
        assert any(isinstance(it, Save) for it in meter.step(used, rich.now_s)) is paid
    assert meter.book.unpaid == {}


def test_what_the_chain_refuses_stays_owed_and_is_tried_again(rich: World):
    """A hot key without money: the withdrawal says why it waits."""
    rich.step(signed(wish()))
    [submit] = payouts(rich)
    rich.step(Reverted(submit.key, "ERC20InsufficientBalance"))
    [name] = rich.meter.book.unpaid
    assert rich.meter.payouts.trouble[name] == "ERC20InsufficientBalance"
    rich.wait(9)
    assert payouts(rich) == []
    rich.wait(2)
    assert payouts(rich) == [submit]


def test_a_new_hot_key_does_not_pay_what_the_old_one_may_have_paid(rich: World):
    """The nonce is the old key's: another key's transfer could be a second one, so it is left to people."""
    rich.step(signed(wish()))
    party = msgspec.structs.replace(PARTY, hot=STRANGER.address, sign=STRANGER.sign)
    other = Meter(party, Directory(), Routing(), Terms())
    decoder = msgspec.msgpack.Decoder(other.RECORDS)
    other.restore(decoder.decode(record) for record in rich.journal)
    assert other.payouts.due(rich.now_s + 100) == []
    assert len(other.book.unpaid) == 1


def test_who_put_money_on_an_account_withdraws_no_more_than_that(rich: World):
    """The rest was others' money; and what was withdrawn can't be withdrawn again."""
    rich.step(signed(wish(ACCOUNT)))
    [saved] = [it.record for it in rich.of(Save)]
    assert saved.amount_wei == FUNDED
    assert refused(rich, signed(wish(ACCOUNT, nonce=2))) == "too_little"


def test_nobody_withdraws_what_others_put_in_after_his_own_was_spent(rich: World):
    """The oldest deposit is spent first; what is refunded or left over is the newest's."""
    spender = Digest(b"S" * 32)
    rich.chain(events.Funded(GATEWAY, spender, WALLET.address, FUNDED))
    rich.answer(7, 8, account=spender)
    cost_wei = rich.meter.book.account(spender).charged_wei
    rich.chain(events.Funded(GATEWAY, spender, STRANGER.address, FUNDED))
    book = rich.meter.book
    assert book.withdrawable_wei(spender, WALLET.address) == FUNDED - cost_wei > 0
    assert book.withdrawable_wei(spender, STRANGER.address) == FUNDED
    book.account(spender).held_wei = FUNDED
    assert book.withdrawable_wei(spender, WALLET.address) == 0
    assert book.withdrawable_wei(spender, STRANGER.address) == FUNDED - cost_wei
    book.account(spender).held_wei = 0
    rich.step(signed(wish(spender), STRANGER))
    assert book.withdrawable_wei(spender, STRANGER.address) == 0
    assert book.withdrawable_wei(spender, WALLET.address) == FUNDED - cost_wei


def test_a_stranger_withdraws_nothing(rich: World):
    """Neither from the wallet's own account, though it once paid into it more than there is, nor from another."""
    found = judged(rich, signed(wish(OWN), STRANGER))
    assert isinstance(found, Payout), "its own gift it may take back, if it also has a key of the account"
    assert refused(rich, signed(wish(ACCOUNT), STRANGER)) == "too_little"
    nobody = wallet_account(STRANGER.address)
    assert refused(rich, signed(wish(nobody), STRANGER)) == "too_little"
    assert nobody not in rich.meter.book.accounts


def test_what_an_answer_may_cost_is_not_withdrawn_while_it_runs(rich: World):
    """Held money is no credit."""
    rich.ask(account=OWN)
    account = rich.meter.book.account(OWN)
    assert account.held_wei
    rich.step(signed(wish()))
    assert account.credit_wei == 0
    assert account.withdrawn_wei == FUNDED - account.held_wei


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (signed(wish(gateway=HOME)), "wrong_gateway"),
        (signed(wish(expires_s=int(START_S))), "expired"),
        (signed(wish(expires_s=int(START_S) + KEEP_PAYOUT_S + 60)), "expired"),
        (Withdraw(wish(), bytes(65)), "bad_signature"),
        (Withdraw(wish(most_wei=LEAST_WEI), signed(wish()).signature), "too_little"),
        (signed(wish(most_wei=LEAST_WEI - 1)), "too_little"),
    ],
)
def test_what_is_not_signed_for_here_and_now_is_refused(rich: World, asked: Withdraw, code: str):
    """Another gateway, another time, another amount than signed: each a refusal with its own name."""
    assert refused(rich, asked) == code


def test_withdrawals_of_an_account_are_few_an_hour(rich: World):
    """The gateway pays for their transactions; an hour later there are more, and the old requests stay dead."""
    asked = [signed(wish(most_wei=LEAST_WEI, nonce=at)) for at in range(MOST_AN_HOUR + 1)]
    for at in range(MOST_AN_HOUR):
        rich.step(asked[at])
        rich.step(Mined(payouts(rich)[0].key, ZERO_DIGEST, 1))
    assert refused(rich, asked[-1]) == "too_many"
    rich.now_s += KEEP_PAYOUT_S + 2
    rich.chain(events.Funded(GATEWAY, ACCOUNT, STRANGER.address, 1))
    assert rich.meter.book.payouts == {}
    assert {refused(rich, it) for it in asked} == {"expired"}
    later = signed(wish(nonce=99, expires_s=int(rich.now_s) + 60))
    assert isinstance(judged(rich, later), Payout)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_crash_between_any_two_effects_pays_neither_twice_nor_less(
    make_world: Callable[[], World], seed: int
):
    """Whenever the process dies, and even if its outbox forgets all: in the end the chain paid what the book says."""
    world, chain, draw = make_world(), Ledger(), random.Random(seed)
    world.open()
    rich_with(world)
    way: list[Submit] = []
    asked = [
        signed(wish(draw.choice([OWN, ACCOUNT]), draw.randint(1, 20) * LEAST_WEI, at)) for at in range(6)
    ]

    def act(event: Any, dies: bool) -> None:
        effects = world.meter.step(event, world.now_s)
        for effect in effects[: draw.randint(0, len(effects)) if dies else len(effects)]:
            if isinstance(effect, Save):
                world.journal.append(canonical.encode(effect.record))
            elif isinstance(effect, Submit) and effect.key.startswith(PREFIX):
                way.append(effect)
        if dies:
            world.crash()
            if draw.random() < 0.5:
                way.clear()
        world.check()

    def turn(dies: bool) -> None:
        if way and draw.random() < 0.5:
            act(chain.mine(way.pop(draw.randrange(len(way)))), dies)
        else:
            act(draw.choice(asked), dies)
        world.now_s += 0.5
        way.extend(world.meter.payouts.due(world.now_s))

    for _ in range(60):
        turn(draw.random() < 0.3)
        accounts = world.meter.book.accounts.values()
        assert chain.paid_wei() <= sum(it.withdrawn_wei for it in accounts)
    world.crash()
    way[:] = world.meter.payouts.due(world.now_s + 100)
    while way:
        act(chain.mine(way.pop()), dies=False)
    book = world.meter.book
    assert chain.paid_wei() == sum(it.withdrawn_wei for it in book.accounts.values())
    assert book.unpaid == {}
    records = [canonical.encode(it) for it in world.meter.snapshot()]
    world.journal = records
    assert [canonical.encode(it) for it in world.fresh().snapshot()] == records
