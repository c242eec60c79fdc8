"""The Meter as transcripts: what is charged, what isn't, and what the provider is told."""

from typing import Any

import msgspec
import pytest

from clusterai.gateway.core.errands import Abandon, Deliver, Done, Failed, Restarted
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Announce, Cancel, Dispute, ModelOffer, OpenChannel, Pay, Refused
from clusterai.protocol.signing import Key, signed_by
from clusterai.protocol.statements import signing_digest
from clusterai.runtime.machine import Linked, Received, Save
from clusterai.work.inference import KIND

World = Any
ACCOUNT = Digest(b"A" * 32)
MODEL = Digest(b"m" * 32)
GATEWAY = Address(b"\x02" * 20)
FUNDED = 10**9


def test_a_right_receipt_charges_pays_and_ends_the_errand_in_that_order(opened: World):
    """The charge is saved before the voucher leaves and before the client hears the end."""
    provider, work = opened.ask(1, 2, 3)
    opened.step(provider.tokens(work, 7, 8))
    assert [it.tokens for it in opened.of(Deliver)] == [(7, 8)]
    opened.step(provider.finished(work, 7, 8))
    assert isinstance(opened.last[0], Save)
    assert opened.sent(Pay)[0].voucher.amount_wei == 5 * 3
    assert opened.of(Done)[0].charged.receipt.amount_wei == 15
    assert (opened.account().charged_wei, opened.account().held_wei) == (15, 0)


def test_the_voucher_and_order_are_signed_by_the_hot_key(opened: World):
    """What leaves can be judged by a contract: signatures are over the EIP-712 digests of this network."""
    conftest = opened.meter.me
    provider, work = opened.ask()
    assert signed_by(conftest.hot, signing_digest(work.order, conftest.network), work.signature)
    opened.step(provider.tokens(work, 7))
    opened.step(provider.finished(work, 7))
    pay = opened.sent(Pay)[0]
    assert signed_by(conftest.hot, signing_digest(pay.voucher, conftest.vouchers), pay.signature)


def test_vouchers_are_cumulative(opened: World):
    """The second answer of a provider raises its voucher by its own amount only."""
    opened.unlink(1)
    opened.answer(7)
    opened.answer(7, 8)
    assert opened.sent(Pay)[0].voucher.amount_wei == 4 * 3 + 5 * 3


def test_a_repeated_receipt_is_paid_with_the_same_voucher_and_charged_once(opened: World):
    """A provider that missed its Pay says Finished again and gets the same voucher."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    opened.step(provider.finished(work, 7))
    first = opened.sent(Pay)
    opened.step(provider.finished(work, 7))
    assert opened.sent(Pay) == first
    assert opened.of(Save) == []
    assert opened.account().charged_wei == 12


@pytest.mark.parametrize(
    ("lies", "code"),
    [
        ({"answer": b"x" * 32}, "answer_mismatch"),
        ({"input_units": 4}, "usage_mismatch"),
        ({"output_units": 2}, "usage_mismatch"),
        ({"amount_wei": 13}, "wrong_price"),
        ({"amount_wei": 11}, "wrong_price"),
        ({"epoch": 990}, "stale_epoch"),
        ({"model": b"n" * 32}, "wrong_parties"),
        ({"gateway": b"\x09" * 20}, "wrong_parties"),
        ({"signer": Key(b"\x77" * 32)}, "bad_signature"),
    ],
)
def test_a_wrong_receipt_is_disputed_by_name_and_nothing_is_charged(
    opened: World, lies: dict[str, Any], code: str
):
    """Each lie has its own code; the errand goes on at another provider from the beginning."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    opened.step(provider.finished(work, 7, **lies))
    assert [it.code for it in opened.sent(Dispute)] == [code]
    assert opened.of(Restarted)
    assert opened.account().charged_wei == 0
    other, again = opened.work()
    assert other is not provider
    assert KIND.decode(again.request).so_far == ()


@pytest.mark.parametrize("reason", ["cancelled", "whenever"])
def test_an_answer_ends_only_as_answers_end(opened: World, reason: str):
    """A provider can't cut an answer short and be paid by saying that it was cancelled."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    opened.step(provider.finished(work, 7, reason=reason))
    assert [it.code for it in opened.sent(Dispute)] == ["wrong_end"]
    assert opened.account().charged_wei == 0


def test_work_that_can_not_be_resumed_is_done_again_from_the_start(opened: World):
    """What its lost provider sent is void, and the next one is paid for all of it."""
    kind = msgspec.structs.replace(KIND, resume=None)
    provider, work = opened.ask(kind=kind)
    opened.step(provider.tokens(work, 7))
    opened.unlink(opened.providers.index(provider))
    assert opened.of(Restarted)
    other, again = opened.work()
    assert KIND.decode(again.request).so_far == ()
    opened.step(other.tokens(again, 8))
    opened.step(other.finished(again, 8))
    assert opened.account().charged_wei == 12


def test_an_answer_that_can_not_be_one_is_not_paid(opened: World):
    """What a kind of work calls impossible is refused before any audit."""

    def wrong(request: Any, tokens: tuple[int, ...], reason: str) -> str:
        return "seven is no answer"

    kind = msgspec.structs.replace(KIND, wrong=wrong)
    provider, work = opened.ask(kind=kind)
    opened.step(provider.tokens(work, 7))
    opened.step(provider.finished(work, 7))
    assert [it.code for it in opened.sent(Dispute)] == ["impossible_answer"]


def test_what_a_client_has_read_from_a_liar_ends_in_an_error_not_in_another_answer(opened: World):
    """A stream can't be unread: with a refused receipt it fails, free of charge."""
    provider, work = opened.ask(streamed=True)
    opened.step(provider.tokens(work, 7))
    opened.step(provider.finished(work, 7, amount_wei=1))
    assert (opened.failed().code, opened.failed().partial) == ("bad_receipt", True)
    assert opened.account().credit_wei == FUNDED


def test_more_tokens_than_were_asked_for_are_over_the_cap(opened: World):
    """A provider can't run up the bill past max_tokens."""
    provider, work = opened.ask(most=2)
    opened.step(provider.tokens(work, 7, 8, 9))
    opened.step(provider.finished(work, 7, 8, 9))
    assert [it.code for it in opened.sent(Dispute)] == ["over_cap"]


def test_an_order_states_the_prices_of_the_offer_that_was_chosen(opened: World):
    """What was agreed is signed, so that anyone can compute what the receipt may ask."""
    _, work = opened.ask()
    assert (work.order.input_price_wei, work.order.output_price_wei) == (3, 3)


def test_a_price_that_rose_on_the_way_is_ordered_again_at_the_new_price(opened: World):
    """The refused offer isn't tried again; the one that was announced meanwhile is, and no other provider is asked."""
    opened.unlink(1)
    provider, work = opened.ask()
    dearer = ModelOffer(MODEL, "tiny", 4, 5, 4)
    opened.step(Received(provider.owner, Announce((dearer,), 0, 0, False)))
    opened.step(Received(provider.owner, Refused(canonical.digest(work.order), "underpaid", "", 0)))
    again, order = opened.work()[0], opened.work()[1].order
    assert again is provider
    assert (order.input_price_wei, order.output_price_wei) == (4, 5)
    assert opened.account().held_wei == order.cap_wei == 3 * 4 + 8 * 5


def test_a_provider_that_hides_its_new_price_gets_no_order_until_it_says_it(opened: World):
    """Refusing one's own offer takes the offer away."""
    opened.unlink(1)
    provider, work = opened.ask()
    opened.step(Received(provider.owner, Refused(canonical.digest(work.order), "underpaid", "", 0)))
    assert opened.work() is None
    assert opened.account().held_wei == 0


class EndsAt:
    """An answer of so many tokens."""

    def __init__(self, size: int) -> None:
        self._left = size

    def push(self, token: int) -> str | None:
        self._left -= 1
        return None if self._left else "stop"


@pytest.fixture
def ending(make_world: Any) -> World:
    """Answers end with their third token, and the gateway knows it."""
    world = make_world()

    def follow(model: Digest, request: Any) -> EndsAt:
        return EndsAt(3)

    world.follow = follow
    world.meter = world.fresh()
    world.open()
    return world


def test_a_provider_that_runs_past_the_end_is_stopped_at_once_and_paid_up_to_it(ending: World):
    """Nobody hears of what comes after the end; a receipt for what came before it is right."""
    provider, work = ending.ask()
    ending.step(provider.tokens(work, 7, 8))
    assert ending.sent(Cancel) == []
    ending.step(provider.tokens(work, 9, 10, 11, start=2))
    assert [it.tokens for it in ending.of(Deliver)] == [(9,)]
    assert ending.sent(Cancel) == [Cancel(canonical.digest(work.order), 3)]
    assert ending.step(provider.tokens(work, 12, start=5)) == []
    ending.step(provider.finished(work, 7, 8, 9, reason="cancelled"))
    assert ending.of(Done)[0].charged.receipt.output_units == 3
    assert ending.account().charged_wei == 6 * 3


def test_a_receipt_for_what_came_after_the_end_is_not_paid_and_the_answer_is_free(ending: World):
    """The client has its whole answer; nothing is done again, and nobody is charged."""
    provider, work = ending.ask(streamed=True)
    ending.step(provider.tokens(work, 7, 8, 9, 10))
    ending.step(provider.finished(work, 7, 8, 9, 10))
    assert [it.code for it in ending.sent(Dispute)] == ["answer_mismatch"]
    assert (ending.of(Done)[0].reason, ending.of(Done)[0].charged) == ("stop", None)
    assert ending.work() is None
    assert spent_nothing(ending)


def spent_nothing(world: World) -> bool:
    return (world.account().charged_wei, world.account().held_wei) == (0, 0)


def test_a_stopped_provider_that_says_nothing_more_is_let_go(ending: World):
    """Its answer is over, whatever it does."""
    provider, work = ending.ask()
    ending.step(provider.tokens(work, 7, 8, 9, 10))
    ending.wait(11)
    assert ending.of(Done)[0].charged is None
    assert spent_nothing(ending)


def test_an_answer_that_ended_is_not_gone_on_with_elsewhere(ending: World):
    """Only its receipt is missing; the end counts over the tokens of all its providers."""
    provider, work = ending.ask()
    ending.step(provider.tokens(work, 7, 8))
    ending.unlink(ending.providers.index(provider))
    other, again = ending.work()
    ending.step(other.tokens(again, 9))
    ending.unlink(ending.providers.index(other))
    assert ending.of(Done)[0].reason == "stop"
    assert spent_nothing(ending)


def test_what_begins_again_ends_where_it_would_have(ending: World):
    """Void tokens don't count."""
    provider, work = ending.ask()
    ending.step(provider.tokens(work, 7, 8))
    ending.step(provider.finished(work, 7, 8, amount_wei=1))
    other, again = ending.work()
    ending.step(other.tokens(again, 7, 8, 9))
    ending.step(other.finished(again, 7, 8, 9))
    assert ending.of(Done)[0].charged is not None


def test_receipts_for_unknown_orders_are_disputed(opened: World):
    """Nobody is paid for what wasn't ordered here, nor for another's order."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    receipt = provider.finished(work, 7)
    thief = next(it for it in opened.providers if it is not provider)
    opened.step(Received(thief.owner, receipt.frame))
    assert [it.code for it in opened.sent(Dispute)] == ["unknown_order"]
    assert opened.account().charged_wei == 0


def test_tokens_that_come_twice_are_delivered_once(opened: World):
    """A repeated or overlapping frame adds only what is new."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7, 8))
    opened.step(provider.tokens(work, 7, 8))
    assert opened.of(Deliver) == []
    opened.step(provider.tokens(work, 8, 9, start=1))
    assert opened.of(Deliver)[0].tokens == (9,)


def test_a_gap_in_the_tokens_moves_the_errand_on(opened: World):
    """Tokens that were lost on the way can't be paid for, so another provider goes on."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    opened.step(provider.tokens(work, 9, start=2))
    assert opened.sent(Cancel)
    other, again = opened.work()
    assert other is not provider
    assert KIND.decode(again.request).so_far == (7,)


def test_a_lost_provider_is_replaced_and_only_the_last_one_is_paid(opened: World):
    """The next provider gets prompt and tokens so far; the account pays its receipt alone."""
    provider, work = opened.ask(1, 2, 3)
    opened.step(provider.tokens(work, 7, 8))
    opened.unlink(opened.providers.index(provider))
    other, again = opened.work()
    rest = KIND.decode(again.request)
    assert (rest.prompt, rest.so_far, rest.sampling) == (
        (1, 2, 3),
        (7, 8),
        KIND.decode(work.request).sampling,
    )
    opened.step(other.tokens(again, 9))
    assert opened.of(Deliver)[0].tokens == (9,)
    opened.step(other.finished(again, 9))
    assert opened.of(Done)[0].charged.receipt.amount_wei == (3 + 2 + 1) * 3
    assert opened.account().charged_wei == 18


def test_the_late_receipt_of_a_replaced_provider_is_not_paid(opened: World):
    """Whoever was given up on hears that the order was superseded."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    number = opened.providers.index(provider)
    opened.unlink(number)
    opened.link(number)
    opened.step(provider.finished(work, 7))
    assert [it.code for it in opened.sent(Dispute)] == ["superseded"]


def test_a_silent_provider_is_noticed_within_five_seconds(opened: World):
    """No token for four seconds: the next provider gets the order."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    opened.wait(4.5)
    assert opened.sent(Cancel)
    other, again = opened.work()
    assert other is not provider
    assert KIND.decode(again.request).so_far == (7,)


def test_all_tokens_without_a_receipt_are_a_free_answer(opened: World):
    """Nobody is hired to go on after the end, and nobody is charged without a receipt."""
    provider, work = opened.ask(most=2)
    opened.step(provider.tokens(work, 7, 8))
    opened.unlink(opened.providers.index(provider))
    done = opened.of(Done)[0]
    assert (done.reason, done.charged) == ("length", None)
    assert opened.account().credit_wei == FUNDED


def test_without_any_provider_the_errand_waits_a_little_and_fails_with_a_reason(opened: World):
    """A model that nobody serves now is a named failure with a time to retry."""
    opened.unlink(0)
    opened.unlink(1)
    assert opened.ask() is None
    opened.wait(2.5)
    assert opened.failed().code == "absent"
    assert opened.failed().retry_after_s > 0
    assert opened.account().credit_wei == FUNDED


def test_a_broken_stream_waits_for_a_provider_to_come_back(opened: World):
    """With one provider that restarts, the stream goes on when it is back."""
    opened.unlink(1)
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    opened.unlink(0)
    opened.wait(3)
    opened.link(0)
    back, again = opened.work()
    assert back is provider
    assert KIND.decode(again.request).so_far == (7,)


def test_busy_everywhere_waits_then_fails_as_busy(opened: World):
    """A bounded wait ends with the time after which to try again."""
    opened.ask(patience_s=3)
    for _ in range(2):
        provider, work = opened.work()
        opened.step(Received(provider.owner, Refused(canonical.digest(work.order), "busy", "", 60_000)))
    assert opened.of(Failed) == []
    opened.wait(3)
    assert opened.failed().code == "busy"
    assert opened.account().credit_wei == FUNDED


def test_what_every_provider_refuses_fails_with_the_providers_words(opened: World):
    """A request that no engine can do comes back with the reason, not with a timeout."""
    opened.ask()
    for _ in range(2):
        provider, work = opened.work()
        frame = Refused(canonical.digest(work.order), "bad_request", "the prompt is too long", 0)
        opened.step(Received(provider.owner, frame))
    assert (opened.failed().code, opened.failed().detail) == ("bad_request", "the prompt is too long")


def test_an_account_without_credit_is_told_what_it_would_take(opened: World):
    """The worst cost must be covered before anybody works."""
    assert opened.ask(account=Digest(b"B" * 32)) is None
    assert opened.failed().code == "insufficient_credit"
    assert "33 wei" in opened.failed().detail


def test_held_credit_cannot_be_spent_twice(make_world: Any):
    """Orders that run now count as spent until they end."""
    world = make_world()
    world.open(funded=40)
    provider, work = world.ask()
    assert world.ask() is None
    assert world.failed().code == "insufficient_credit"
    world.step(provider.tokens(work, 7))
    world.step(provider.finished(work, 7))
    assert world.account().credit_wei == 28


def test_a_client_that_leaves_pays_for_what_was_made(opened: World):
    """The provider is told to stop and is paid for its partial answer."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    opened.step(Abandon(1))
    assert opened.sent(Cancel)
    opened.step(provider.finished(work, 7, reason="cancelled"))
    assert opened.of(Done)[0].abandoned
    assert opened.account().charged_wei == 12


def test_of_an_answer_that_lost_its_worth_on_the_way_only_the_beginning_is_paid(opened: World):
    """The provider is told where it ended for its client, signs for so much, and for all of it is paid nothing."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7, 8, 9))
    opened.step(Abandon(1, keep=1))
    assert opened.sent(Cancel) == [Cancel(canonical.digest(work.order), 1)]
    opened.step(provider.finished(work, 7, reason="cancelled"))
    assert opened.account().charged_wei == 12


def test_who_asks_for_more_than_was_kept_is_paid_nothing(opened: World):
    """Villain: a receipt of all that was sent, after it was told that a part of it isn't worth anything."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7, 8, 9))
    opened.step(Abandon(1, keep=1))
    opened.step(provider.finished(work, 7, 8, 9, reason="cancelled"))
    assert opened.account().charged_wei == 0


def test_a_cancelled_order_whose_receipt_never_comes_is_let_go(opened: World):
    """Holds don't outlive a provider's silence."""
    opened.ask()
    opened.step(Abandon(1))
    opened.wait(11)
    assert (opened.account().held_wei, len(opened.meter.errands)) == (0, 0)


def test_an_errand_that_waits_can_be_abandoned(opened: World):
    """A client that leaves the queue leaves nothing behind."""
    opened.unlink(0)
    opened.unlink(1)
    opened.ask()
    opened.step(Abandon(1))
    opened.link(0)
    assert opened.work() is None
    assert opened.meter.errands == {}


def test_channels_are_approved_opened_and_filled_by_deposits(world: World):
    """The first announcement fixes the terms; the deposit's event makes the provider usable."""
    world.chain(*world.registered(), events.Funded(GATEWAY, ACCOUNT, GATEWAY, FUNDED))
    world.link(0)
    assert [type(it.call) for it in world.of(Submit)] == [calls.Approve]
    effects = world.mine(world.of(Submit)[0])
    deposits = [it for it in effects if isinstance(it, Submit)]
    assert [type(it.call) for it in deposits] == [calls.Deposit]
    assert world.ask() is None
    world.mine(deposits[0])
    assert world.sent(OpenChannel)
    assert world.work() is not None


def test_a_channel_is_filled_up_before_it_runs_dry_and_once(opened: World):
    """Low headroom asks for one deposit, and not for another while that is on its way."""
    channel = opened.meter.book.by_provider[opened.providers[0].owner]
    channel.balance_wei = 4 * 10**9
    opened.chain()
    assert len(opened.of(Submit)) == 1
    opened.chain()
    assert opened.of(Submit) == []


def test_a_deposit_that_reverts_is_tried_again_later(world: World):
    """An empty wallet doesn't stop the gateway from asking again."""
    world.chain(*world.registered())
    world.link(0)
    world.mine(world.of(Submit)[0])
    key = f"deposit:{next(iter(world.meter.book.channels)).hex()}:0"
    world.step(Reverted(key, "ERC20InsufficientBalance"))
    world.wait(5)
    assert world.of(Submit) == []
    world.wait(6)
    assert [it.key for it in world.of(Submit)] == [key]


def test_funding_counts_once_however_often_the_chain_is_read(opened: World):
    """A restart reads old blocks again; their money was counted."""
    opened.step(events.Funded(GATEWAY, ACCOUNT, GATEWAY, 5))
    opened.step(events.Block(1, 15_000))
    assert opened.account().funded_wei == FUNDED


def test_funding_of_another_gateway_is_not_ours(opened: World):
    """Credit is only what was paid to this gateway."""
    opened.chain()
    opened.step(events.Funded(Address(b"\x09" * 20), ACCOUNT, GATEWAY, 5))
    opened.chain()
    assert opened.account().funded_wei == FUNDED


def test_a_conviction_refunds_exactly_what_was_forfeited(opened: World):
    """Charges above what the chain has paid for good go back, a straddling one in part."""
    opened.unlink(1)
    for _ in range(3):
        opened.answer(7)  # 12 wei each: 0-12, 12-24, 24-36
    channel = opened.meter.book.by_provider[opened.providers[0].owner]
    effects = opened.chain(events.Barred(channel.provider))
    assert [type(it.call) for it in effects if isinstance(it, Submit)] == [calls.Reclaim]
    opened.chain(events.Reclaimed(channel.channel_id, 4, 20))
    assert (opened.account().charged_wei, opened.account().refunded_wei) == (20, 16)
    opened.chain(events.Reclaimed(channel.channel_id, 4, 20))
    assert opened.account().refunded_wei == 16
    assert opened.ask() is None


def test_a_convict_that_never_claimed_is_refunded_wholly(opened: World):
    """When the chain holds nothing of a channel, unclaimed vouchers are worthless and their charges go back."""
    opened.unlink(1)
    opened.answer(7)
    channel = opened.meter.book.by_provider[opened.providers[0].owner]
    effects = opened.chain(events.Barred(channel.provider))
    key = next(it.key for it in effects if isinstance(it, Submit))
    opened.step(Reverted(key, "NothingHeld"))
    opened.now_s += 2
    opened.chain()
    assert (opened.account().charged_wei, opened.account().refunded_wei) == (0, 12)


def test_a_reclaim_that_was_mined_before_a_crash_is_refunded_by_its_event(opened: World):
    """A second Reclaim reverts; what the first one moved counts, though its event comes after that answer."""
    opened.unlink(1)
    for _ in range(3):
        opened.answer(7)
    channel = opened.meter.book.by_provider[opened.providers[0].owner]
    window = int(opened.now_s) // opened.meter.me.window_s
    opened.chain(events.Claimed(channel.channel_id, channel.provider, 24, 24, window))
    effects = opened.chain(events.Barred(channel.provider))
    key = next(it.key for it in effects if isinstance(it, Submit))
    opened.step(Reverted(key, "NothingHeld"))
    opened.chain(events.Reclaimed(channel.channel_id, 24, 0))
    opened.now_s += 2
    opened.chain()
    assert (opened.account().charged_wei, opened.account().refunded_wei) == (0, 36)


def submitted(effects: list[Any]) -> list[tuple[str, Any]]:
    return [(it.key, it.call) for it in effects if isinstance(it, Submit)]


def test_what_a_convict_never_claimed_of_a_deposit_comes_back(opened: World):
    """After the refund the rest is asked back; a convict's channel needs no delay, so it is taken at once."""
    opened.unlink(1)
    opened.answer(7)
    channel = opened.meter.book.by_provider[opened.providers[0].owner]
    put_wei = channel.balance_wei
    opened.chain(events.Barred(channel.provider))
    [(key, call)] = submitted(opened.chain(events.Reclaimed(channel.channel_id, 4, 2)))
    assert call == calls.InitiateWithdraw(channel.config, put_wei - 2)
    assert submitted(opened.chain()) == [], "it was asked for once"
    opened.step(Mined(key, Digest(bytes(32)), opened.block))
    [(key, call)] = submitted(opened.chain(events.WithdrawInitiated(channel.channel_id, put_wei - 2, 0)))
    assert call == calls.FinalizeWithdraw(channel.config)
    assert submitted(opened.chain(events.WithdrawFinalized(channel.channel_id, put_wei - 2))) == []
    assert (channel.balance_wei, channel.unspent_wei, channel.withdrawing) == (2, 0, False)
    assert submitted(opened.chain()) == []


def test_a_withdrawal_that_reverts_or_was_cut_short_by_a_crash_is_asked_for_again(opened: World):
    """The chain's own events say how far it is; until they came, asking twice only reverts."""
    opened.unlink(1)
    opened.answer(7)
    owner = opened.providers[0].owner
    put_wei = opened.meter.book.by_provider[owner].balance_wei
    channel_id = opened.meter.book.by_provider[owner].channel_id
    opened.chain(events.Barred(owner))
    [(asked, _)] = submitted(opened.chain(events.Reclaimed(channel_id, 12, 0)))
    opened.step(Reverted(asked, "the chain was busy"))
    assert submitted(opened.chain()) == []
    opened.now_s += 11
    assert [key for key, _ in submitted(opened.chain())] == [asked]
    opened.crash()
    assert [key for key, _ in submitted(opened.last)] == [asked]
    opened.chain(events.WithdrawInitiated(channel_id, put_wei, 0))
    opened.journal = [canonical.encode(record) for record in opened.meter.snapshot()]
    opened.crash()
    [(_, call)] = submitted(opened.last)
    assert call == calls.FinalizeWithdraw(opened.meter.book.by_provider[owner].config)
    opened.chain(events.WithdrawFinalized(channel_id, put_wei))
    opened.crash()
    assert submitted(opened.last) == []


def test_an_order_running_at_a_convict_goes_on_elsewhere(opened: World):
    """A verdict ends what the barred provider was doing, unpaid."""
    provider, work = opened.ask()
    opened.step(provider.tokens(work, 7))
    effects = opened.chain(events.Barred(provider.owner))
    opened.last = effects
    other, _ = opened.work()
    assert other is not provider
    opened.step(provider.finished(work, 7))
    assert [it.code for it in opened.sent(Dispute)] == ["barred"]


def test_matured_claims_are_final_and_forgotten(opened: World):
    """Memory doesn't grow with receipts that nothing can undo, and they aren't refunded."""
    opened.unlink(1)
    opened.answer(7)
    channel = opened.meter.book.by_provider[opened.providers[0].owner]
    window = int(opened.now_s) // 60
    opened.chain(events.Claimed(channel.channel_id, channel.provider, 12, 12, window))
    opened.now_s += 180
    opened.chain(events.Settled(channel.provider, Address(b"t" * 20), channel.provider, 12))
    assert channel.charges == []
    assert opened.meter.book.paid == {}
    opened.chain(events.Barred(channel.provider), events.Reclaimed(channel.channel_id, 0, 12))
    assert opened.account().charged_wei == 12


def test_without_the_chain_work_goes_on_until_the_deposit_is_used_up(opened: World):
    """No block for an hour: orders, receipts and vouchers go on, bounded by the channel."""
    opened.unlink(1)
    for _ in range(3):
        opened.answer(7)
    opened.meter.book.by_provider[opened.providers[0].owner].balance_wei = 3 * 12 + 20
    assert opened.ask() is None
    opened.wait(11)
    assert opened.failed().code == "unfunded"


def test_a_provider_that_comes_back_gets_the_newest_voucher(opened: World):
    """One Pay after a new link covers all that it may have missed."""
    opened.unlink(1)
    opened.answer(7)
    opened.unlink(0)
    opened.step(Linked(opened.providers[0].owner))
    assert [it.voucher.amount_wei for it in opened.sent(Pay)] == [12]
