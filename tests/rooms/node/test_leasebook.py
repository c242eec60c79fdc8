"""The lease book as transcripts: what it takes, what it refuses, what it is owed and what it shows."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clusterai.audit.core.opening import MAX_REQUEST_BYTES
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import AnswerChallenge, CommitEpoch, Mined, Reverted, Submit
from clusterai.node.core.leasebook import TRIAL_S
from clusterai.node.core.leases import (
    Broke,
    Drain,
    Forget,
    Keep,
    Kept,
    Noted,
    OpenEpoch,
    Paused,
    Prepare,
    Prepared,
    Produced,
    Serving,
    Start,
    Stop,
)
from clusterai.protocol import canonical, merkle
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import (
    MAX_RECEIPTS_PER_EPOCH,
    Announce,
    Answer,
    Cancel,
    Dispute,
    Finished,
    ModelOffer,
    OpenChannel,
    Refused,
    Relay,
    Work,
)
from clusterai.protocol.signing import recover
from clusterai.protocol.statements import EPOCH_LIST, network_domain, signing_digest
from clusterai.runtime.machine import Linked, Received, Save, Send, Unlinked
from clusterai.work.inference import Generation
from tests.rooms.node.leaseworld import (
    BALANCE_WEI,
    CHANNELS,
    EPOCH_S,
    GATEWAY,
    GATEWAY_HOT,
    HOT,
    INPUT_WEI,
    ME,
    MODEL,
    NETWORK,
    OFFER,
    OTHER,
    OTHER_HOT,
    OUTPUT_WEI,
    SEAL_TO,
    STRANGER,
    TX,
    VALIDATOR,
    WINDOW_S,
    World,
    find,
    ready,
    refusal,
)


def test_an_order_becomes_a_signed_receipt() -> None:
    """Work is started, its transcript kept, then the receipt saved, then sent; the price is usage times offer."""
    world = ready()
    work = world.work(prompt=3, max_tokens=4)
    order = canonical.digest(work.order)
    (started,) = world.receive(work)
    assert started == Start(order, GATEWAY, MODEL, "inference", Generation(MODEL, (1, 1, 1), max_tokens=4))
    (keep,) = world.book.step(Produced(order, Answer((7, 8), "stop"), cached_units=1), world.now_s)
    assert isinstance(keep, Keep)
    assert keep.transcript.answer == Answer((7, 8), "stop")
    assert keep.transcript.request == work.request
    save, send = world.book.step(Kept(order), world.now_s)
    assert isinstance(save, Save)
    assert send.to == GATEWAY
    receipt = send.frame.receipt
    assert (receipt.input_units, receipt.output_units) == (3, 2)
    assert receipt.amount_wei == 3 * INPUT_WEI + 2 * OUTPUT_WEI
    assert receipt.answer == Answer((7, 8), "stop").digest()
    assert receipt.epoch == int(world.now_s) // EPOCH_S == keep.epoch
    assert recover(signing_digest(receipt, NETWORK), send.frame.signature) == HOT.address
    assert (send.frame.reason, send.frame.cached_units) == ("stop", 1)


def test_resumed_work_counts_what_came_before_as_input() -> None:
    """Tokens that another provider made are prompt here, and the receipt covers only the rest."""
    world = ready()
    request = Generation(MODEL, (1, 1, 1), max_tokens=6, so_far=(4, 5)).canonical()
    finished = world.serve(6, 7, request=request, max_tokens=6, prompt=5)
    assert (finished.receipt.input_units, finished.receipt.output_units) == (5, 2)


def test_the_orders_price_is_asked_whatever_the_offer_is() -> None:
    """A gateway that offers more is taken at its word, and a price that changes meanwhile changes no order."""
    world = ready()
    finished = world.serve(7, 8, output_price_wei=OUTPUT_WEI + 5, cap_wei=10**6)
    assert finished.receipt.amount_wei == 3 * INPUT_WEI + 2 * (OUTPUT_WEI + 5)
    work = world.work()
    world.receive(work)
    world.step(Serving((ModelOffer(MODEL, "tiny", 50, 50, 4),)))
    done = world.answer(work, 7)
    (receipt,) = [it.frame.receipt for it in done if isinstance(it, Send) and isinstance(it.frame, Finished)]
    assert receipt.amount_wei == 3 * INPUT_WEI + OUTPUT_WEI
    assert refusal(world.receive(world.work())).code == "underpaid"


def other_chain(world: World) -> Work:
    return world.work(domain=network_domain(1, Address(b"R" * 20)))


BAD_ORDERS: list[tuple[Callable[[World], Work], str]] = [
    (lambda world: world.work(signer=STRANGER), "bad_signature"),
    (lambda world: world.work(signer=OTHER_HOT), "bad_signature"),
    (other_chain, "bad_signature"),
    (lambda world: world.work(provider=OTHER), "bad_request"),
    (lambda world: world.work(gateway=OTHER), "bad_request"),
    (lambda world: world.work(request=b"other bytes", kind="inference"), "bad_request"),
    (lambda world: world.work(request=bytes(32)), "bad_request"),
    (lambda world: world.work(request=b""), "bad_request"),
    (lambda world: msgspec.structs.replace(world.work(), request=b"swapped"), "bad_request"),
    (lambda world: world.work(kind="training"), "bad_request"),
    (lambda world: world.work(expires_s=int(world.now_s) - 1), "expired"),
    (lambda world: world.work(expires_s=int(world.now_s) + 100_000), "bad_request"),
    (lambda world: world.work(model=b"?" * 32), "unknown_model"),
    (lambda world: world.work(cap_wei=3 * INPUT_WEI + 4 * OUTPUT_WEI - 1), "bad_request"),
    (lambda world: world.work(input_price_wei=INPUT_WEI - 1), "underpaid"),
    (lambda world: world.work(output_price_wei=OUTPUT_WEI - 1), "underpaid"),
    (lambda world: world.work(output_price_wei=OUTPUT_WEI + 1), "bad_request"),
    (lambda world: world.work(channel_id=b"?" * 32), "unfunded"),
]


@pytest.mark.parametrize(("make", "code"), BAD_ORDERS)
def test_a_bad_order_is_refused_by_name(make: Callable[[World], Work], code: str) -> None:
    """Forged, foreign, malformed, stale, unknown, underpaid, under-capped and unfunded orders start nothing."""
    world = ready()
    work = make(world)
    refused = refusal(world.receive(work))
    assert refused.code == code, refused
    assert refused.order == canonical.digest(work.order)
    assert not world.book.running


def test_a_revoked_key_orders_nothing() -> None:
    """Once the chain says that a hot key is revoked, its orders are strangers'."""
    world = ready()
    world.mine(events.Revoked(GATEWAY, GATEWAY_HOT.address))
    assert refusal(world.receive(world.work())).code == "bad_signature"


def test_nothing_is_taken_before_the_engine_is_ready() -> None:
    """No announcement and no work until the engine serves; then both."""
    world = World()
    world.register()
    assert world.step(Linked(GATEWAY)) == []
    world.receive(OpenChannel(world.config()))
    assert refusal(world.receive(world.work())).code == "paused"
    (announced,) = world.step(Serving((OFFER,)))
    assert announced == Send(GATEWAY, Announce((OFFER,), 0, 0, paused=False))
    assert isinstance(world.receive(world.work())[0], Start)


def test_too_much_at_once_is_busy() -> None:
    """Beyond slots and queue an order is refused with a time to come back."""
    world = ready()
    for _ in range(4):
        world.receive(world.work())
    refused = refusal(world.receive(world.work()))
    assert refused.code == "busy"
    assert refused.retry_after_ms > 0


def test_a_repeated_order_is_not_done_twice() -> None:
    """While it runs a repeat is passed over; after its receipt, the receipt is sent again and no second one made."""
    world = ready()
    work = world.work()
    world.receive(work)
    assert world.receive(work) == []
    finished = find(world.answer(work, 7), Finished)
    assert find(world.receive(work), Finished) == finished
    world.check()


def test_a_disputed_order_is_not_done_again() -> None:
    """An order whose receipt was disputed can't be used for a second one."""
    world = ready()
    work = world.work()
    world.receive(work)
    finished = find(world.answer(work, 7), Finished)
    world.receive(Dispute(finished.receipt.order, "superseded", ""))
    assert refusal(world.receive(work)).code == "expired"
    world.check()


def test_another_gateway_cannot_touch_an_order() -> None:
    """Cancels, disputes, payments and repeats of somebody else change nothing."""
    world = ready()
    work = world.work()
    world.receive(work)
    order = canonical.digest(work.order)
    assert world.receive(Cancel(order), sender=OTHER) == []
    finished = find(world.answer(work, 7), Finished)
    assert world.receive(Dispute(order, "over_cap", ""), sender=OTHER) == []
    assert find(world.receive(world.pay(finished, 11), sender=OTHER), Noted).what == "voucher_refused"
    assert refusal(world.receive(work, sender=OTHER)).code == "bad_request"
    assert world.book.owed_wei(world.channel_id) == finished.receipt.amount_wei


def test_cancel_ends_the_work_and_receipts_what_was_produced() -> None:
    """The engine is stopped at once; the tokens so far are charged, the rest isn't."""
    world = ready()
    work = world.work(prompt=3, max_tokens=100)
    world.receive(work)
    order = canonical.digest(work.order)
    assert world.receive(Cancel(order)) == [Stop(order, report=True)]
    assert world.receive(Cancel(order)) == []
    finished = find(world.answer(work, 7, 8, 9, reason="cancelled"), Finished)
    assert finished.receipt.output_units == 3
    assert finished.reason == "cancelled"


def test_an_answer_that_was_over_before_is_receipted_up_to_its_end() -> None:
    """The gateway says with how many tokens; transcript, usage and price are of those."""
    world = ready()
    work = world.work(max_tokens=8)
    world.receive(work)
    order = canonical.digest(work.order)
    assert world.receive(Cancel(order, 2)) == [Stop(order, report=True)]
    done = world.answer(work, 7, 8, 9, 10, reason="cancelled")
    (receipt,) = [it.frame.receipt for it in done if isinstance(it, Send) and isinstance(it.frame, Finished)]
    assert receipt.answer == Answer((7, 8), "cancelled").digest()
    assert (receipt.output_units, receipt.amount_wei) == (2, 3 * INPUT_WEI + 2 * OUTPUT_WEI)
    (keep,) = [it for it in done if isinstance(it, Keep)]
    assert keep.transcript.answer == Answer((7, 8), "cancelled")


def test_calling_everything_too_much_is_no_way_to_work_for_free() -> None:
    """What was sent and cut from receipts counts as disputed, also after a restart: the gateway's credit ends."""
    world = ready()
    for number in range(200):
        work = world.work(max_tokens=8)
        effects = world.receive(work)
        if not [it for it in effects if isinstance(it, Start)]:
            assert refusal(effects).code == "credit"
            break
        world.receive(Cancel(canonical.digest(work.order), 0))
        done = world.answer(work, *range(1, 9), reason="cancelled")
        (finished,) = [it.frame for it in done if isinstance(it, Send) and isinstance(it.frame, Finished)]
        world.receive(world.pay(finished, (number + 1) * 3 * INPUT_WEI))
        if number == 3:
            world.restart()
    else:
        raise AssertionError("it worked on and on for the price of the prompts")


def test_cancel_before_the_first_token_costs_nothing() -> None:
    """Work that produced nothing is refused, not receipted."""
    world = ready()
    work = world.work()
    world.receive(work)
    world.receive(Cancel(canonical.digest(work.order)))
    assert refusal(world.answer(work, reason="cancelled")).code == "cancelled"
    assert not world.book.epochs.made


def test_a_broken_engine_refuses_what_ran() -> None:
    """An engine that fails ends its orders without a receipt, and what it can't do is said by name."""
    world = ready()
    work = world.work()
    world.receive(work)
    order = canonical.digest(work.order)
    refused = refusal(world.step(Broke(order, "engine_failed", "out of memory", 700)))
    assert (refused.code, refused.retry_after_ms) == ("engine_failed", 700)
    assert world.step(Broke(order, "engine_failed", "again")) == []
    assert world.answer(work, 7) == []


def test_draining_ends_what_runs_and_takes_no_more() -> None:
    """After Drain gateways hear of the pause, new orders are refused, running ones end with receipts."""
    world = ready()
    work = world.work()
    world.receive(work)
    assert find(world.step(Drain()), Announce).paused
    assert refusal(world.receive(world.work())).code == "shutting_down"
    assert find(world.answer(work, 7), Finished)


def test_a_paused_node_ends_what_runs_and_takes_no_more_until_it_is_resumed() -> None:
    """Gateways hear of the pause once, a change of its reason is no news to them, and afterwards orders are taken again."""
    world = ready()
    work = world.work()
    world.receive(work)
    assert find(world.step(Paused("its owner sleeps")), Announce).paused
    assert world.step(Paused("its owner plays")) == []
    refused = refusal(world.receive(world.work()))
    assert (refused.code, refused.detail) == ("paused", "its owner plays")
    assert find(world.answer(work, 7), Finished)
    assert not find(world.step(Paused()), Announce).paused
    assert find(world.receive(world.work()), Start)


def test_a_lost_link_stops_its_orders() -> None:
    """The gateway goes elsewhere when the link is lost: what runs for it is stopped and never receipted."""
    world = ready()
    work = world.work()
    world.receive(work)
    order = canonical.digest(work.order)
    assert world.step(Unlinked(GATEWAY)) == [Stop(order, report=False)]
    assert world.answer(work, 7) == []
    assert world.step(Kept(order)) == []


def test_a_transcript_kept_after_the_link_was_lost_makes_no_receipt() -> None:
    """Between the transcript and its confirmation the link may go; then nothing was promised."""
    world = ready()
    work = world.work()
    world.receive(work)
    order = canonical.digest(work.order)
    world.book.step(Produced(order, Answer((7,), "stop")), world.now_s)
    world.step(Unlinked(GATEWAY))
    assert world.step(Kept(order)) == []
    assert not world.book.epochs.made


# --- money ---


def test_a_voucher_pays_and_is_durable() -> None:
    """A good voucher lowers what is owed, and survives a crash."""
    world = ready()
    finished = world.serve()
    amount_wei = finished.receipt.amount_wei
    assert world.book.owed_wei(world.channel_id) == amount_wei
    world.receive(world.pay(finished, amount_wei))
    assert world.book.owed_wei(world.channel_id) == 0
    world.restart()
    assert world.book.owed_wei(world.channel_id) == 0


def test_an_unpaid_receipt_is_sent_again_when_the_gateway_is_back() -> None:
    """Until it is paid or disputed, each new link hears of it; afterwards none does."""
    world = ready()
    paid, unpaid, disputed = world.serve(), world.serve(), world.serve()
    world.receive(world.pay(paid, paid.receipt.amount_wei))
    world.receive(Dispute(disputed.receipt.order, "superseded", ""))
    world.step(Unlinked(GATEWAY))
    assert find(world.step(Linked(GATEWAY)), Finished) == unpaid


def test_a_late_voucher_changes_nothing() -> None:
    """A lower voucher than the newest answers its receipt and moves no money."""
    world = ready()
    first, second = world.serve(), world.serve()
    both = first.receipt.amount_wei + second.receipt.amount_wei
    world.receive(world.pay(second, both))
    world.receive(world.pay(first, first.receipt.amount_wei))
    assert world.book.claims.vouched_wei(world.channel_id) == both
    assert world.book.owed_wei(world.channel_id) == 0
    world.step(Unlinked(GATEWAY))
    assert not [it for it in world.step(Linked(GATEWAY)) if isinstance(it.frame, Finished)]


@pytest.mark.parametrize(
    "lie",
    [
        {"signer": STRANGER},
        {"signer": OTHER_HOT},
        {"domain": NETWORK},
        {"channel_id": b"?" * 32},
    ],
)
def test_a_false_voucher_pays_nothing(lie: dict[str, Any]) -> None:
    """A voucher of another key, domain or channel leaves the receipt unpaid."""
    world = ready()
    finished = world.serve()
    assert find(world.receive(world.pay(finished, 1_000, **lie)), Noted).what == "voucher_refused"
    assert world.book.owed_wei(world.channel_id) == finished.receipt.amount_wei


def test_credit_is_bounded() -> None:
    """A gateway that doesn't pay is refused when its unpaid receipts pass the limit, and served again once it pays."""
    world = ready(credit_wei=50)
    served: list[Finished] = []
    while not served or world.book.owed_wei(world.channel_id) <= 50:
        served.append(world.serve())
    assert refusal(world.receive(world.work())).code == "credit"
    total = sum(it.receipt.amount_wei for it in served)
    world.receive(world.pay(served[-1], total))
    world.serve()


def test_disputing_everything_is_no_way_to_work_for_free() -> None:
    """Disputed receipts use up credit; then there is one order now and then, until as much is paid."""
    world = ready(credit_wei=50)
    for _ in range(4):
        finished = world.serve()
        world.receive(Dispute(finished.receipt.order, "answer_mismatch", "so it says"))
    assert world.book.owed_wei(world.channel_id) == 0
    trial = world.serve()
    world.receive(Dispute(trial.receipt.order, "answer_mismatch", "so it says"))
    refused = refusal(world.receive(world.work()))
    assert (refused.code, refused.retry_after_ms) == ("credit", 1000 * TRIAL_S)
    world.receive(world.pay(trial, 1))
    assert refusal(world.receive(world.work())).code == "credit"
    world.now_s += TRIAL_S
    trial = world.serve()
    world.receive(world.pay(trial, 100))
    world.serve()


def test_the_deposit_covers_every_running_order() -> None:
    """Caps of running orders, unpaid receipts and vouchers together stay within the channel's balance."""
    world = ready(credit_wei=10**9, queue=100)
    each = 3 * INPUT_WEI + 1_000 * OUTPUT_WEI
    orders = BALANCE_WEI // each
    for _ in range(orders):
        assert isinstance(world.receive(world.work(max_tokens=1_000))[0], Start)
    assert refusal(world.receive(world.work(max_tokens=1_000))).code == "unfunded"


def test_a_withdrawing_payer_gets_no_more_work_and_is_claimed_at_once() -> None:
    """When the payer announces to take its deposit back, the vouchers are claimed in the same tick."""
    world = ready()
    finished = world.serve()
    world.receive(world.pay(finished, finished.receipt.amount_wei))
    world.tick(EPOCH_S + 2)
    submit = find(world.out, Submit, lambda it: it.key.startswith("commit"))
    world.commit(submit)
    assert world.submits(world.tick()) == ["claim"]
    world.step(Reverted("claim", "the node was away"))
    world.mine(events.WithdrawInitiated(world.channel_id, BALANCE_WEI, int(world.now_s) + 900))
    assert refusal(world.receive(world.work())).code == "unfunded"
    world.now_s += 10
    assert "claim" in world.submits(world.tick())


def test_a_channel_of_another_payer_pays_for_nobody_else() -> None:
    """A gateway can't order through somebody else's channel, nor open one for others."""
    world = ready()
    other = world.config(payer=OTHER, hot=OTHER_HOT)
    assert find(world.receive(OpenChannel(other)), Noted).what == "channel_refused"
    world.receive(OpenChannel(other), sender=OTHER)
    refused = refusal(world.receive(world.work(channel_id=other.channel_id(CHANNELS))))
    assert refused.code == "unfunded"


def test_a_barred_provider_stops() -> None:
    """Convicted: gateways hear of the pause, no order is taken, nothing is committed or claimed."""
    world = ready()
    finished = world.serve()
    world.receive(world.pay(finished, finished.receipt.amount_wei))
    assert find(world.mine(events.Barred(ME)), Announce).paused
    assert refusal(world.receive(world.work())).code == "paused"
    assert world.submits(world.tick(EPOCH_S + 2)) == []


# --- epochs ---


def over(world: World) -> Submit:
    """Let the epoch end and give the commitment that follows."""
    return find(world.tick(EPOCH_S + 2), Submit, lambda it: isinstance(it.call, CommitEpoch))


def test_an_epoch_is_committed_once_it_is_over() -> None:
    """Root, count and total of the epoch's receipts, disputed ones left out, and asked for once."""
    world = ready()
    first, disputed, second = world.serve(), world.serve(), world.serve()
    world.receive(Dispute(disputed.receipt.order, "superseded", ""))
    assert world.submits(world.tick()) == []
    submit = over(world)
    receipts = [first.receipt, second.receipt]
    assert submit == Submit(
        f"commit:{first.receipt.epoch}",
        CommitEpoch(
            first.receipt.epoch,
            merkle.root([receipt.struct() for receipt in receipts]),
            2,
            sum(receipt.amount_wei for receipt in receipts),
        ),
    )
    assert world.submits(world.tick()) == []


def test_an_epoch_waits_for_its_transcripts() -> None:
    """A receipt promised to an epoch is durable before that epoch's root is fixed."""
    world = ready()
    work = world.work()
    world.receive(work)
    order = canonical.digest(work.order)
    world.book.step(Produced(order, Answer((7,), "stop")), world.now_s)
    world.serve()
    assert world.submits(world.tick(EPOCH_S + 2)) == []
    world.kept[order] = 0
    world.step(Kept(order))
    assert find(world.tick(), Submit).call.count == 2


def test_a_receipt_never_joins_an_epoch_whose_list_is_fixed() -> None:
    """Even if the chain's clock falls back, a new receipt belongs to a later epoch."""
    world = ready()
    finished = world.serve()
    over(world)
    world.seen.append(events.Block(world.block + 1, finished.receipt.epoch * EPOCH_S))
    world.step(world.seen[-1])
    assert world.serve().receipt.epoch == finished.receipt.epoch + 1


def test_an_epoch_of_disputed_receipts_is_forgotten_uncommitted() -> None:
    """Where nothing is left to commit, the transcripts go at once."""
    world = ready()
    finished = world.serve()
    world.receive(Dispute(finished.receipt.order, "superseded", ""))
    effects = world.tick(EPOCH_S + 2)
    assert world.submits(effects) == []
    assert Forget(finished.receipt.epoch) in effects


def test_a_reverted_commitment_is_tried_again() -> None:
    """A commitment that came too early for the chain's clock comes again."""
    world = ready()
    world.serve()
    submit = over(world)
    assert find(world.step(Reverted(submit.key, "EpochNotOver")), Noted).what == "reverted"
    assert world.submits(world.tick()) == []
    assert world.submits(world.tick(10)) == [submit.key]


def test_a_dispute_after_the_list_is_fixed_changes_no_list() -> None:
    """What was once asked of the chain is asked again as it was, over reverts and crashes."""
    world = ready()
    world.serve()
    disputed = world.serve()
    submit = over(world)
    world.receive(Dispute(disputed.receipt.order, "superseded", ""))
    world.step(Reverted(submit.key, "EpochNotOver"))
    assert find(world.tick(10), Submit) == submit
    world.restart()
    world.mine()
    assert find(world.tick(), Submit) == submit


def test_while_the_chain_is_away_epochs_wait_in_order() -> None:
    """Work goes on without the chain; when it is back, epochs are committed oldest first."""
    world = ready(credit_wei=10**9)
    epochs: list[int] = []
    for _ in range(3):
        epochs.append(world.serve().receipt.epoch)
        world.tick(EPOCH_S)
    world.tick(2)
    assert epochs == sorted(set(epochs))
    for epoch in epochs:
        submit = find(world.out, Submit, lambda it, epoch=epoch: it.key == f"commit:{epoch}")
        world.step(Mined(submit.key, TX, world.block + 1))
        world.commit(submit)
        world.tick()
    assert [it.key for it in world.out if isinstance(it, Submit)] == [f"commit:{epoch}" for epoch in epochs]


def test_an_undone_commitment_is_made_again_unchanged() -> None:
    """When a reorganisation takes the commitment away, the very same list is committed again."""
    world = ready()
    world.serve()
    submit = over(world)
    before = world.block
    world.step(Mined(submit.key, TX, world.block + 1))
    world.commit(submit)
    assert world.submits(world.tick()) == []
    world.step(events.RolledBack(before))
    world.block = before
    world.mine()
    world.mine()
    assert find(world.tick(), Submit) == submit


def committed_world(
    receipts: int = 2, rate_ppm: int = 1_000_000, **terms: Any
) -> tuple[World, int, list[Finished]]:
    """A world with one committed epoch whose beacon is known."""
    world = ready(credit_wei=10**9, **terms)
    world.rate_ppm = rate_ppm
    finished = [world.serve() for _ in range(receipts)]
    submit = over(world)
    world.step(Mined(submit.key, TX, world.block + 1))
    world.commit(submit)
    world.out.clear()
    return world, finished[0].receipt.epoch, finished


def test_a_committed_epoch_is_opened_to_a_validator() -> None:
    """All receipts with signatures, and which transcripts to seal; the answer goes through the gateway that asked."""
    world, epoch, finished = committed_world()
    opened = find(world.receive(world.ask(epoch, 1)), OpenEpoch)
    assert opened.gateway == GATEWAY
    assert opened.receipts == tuple(it.receipt for it in finished)
    assert opened.signatures == tuple(it.signature for it in finished)
    assert opened.drawn == ((1, finished[1].receipt.order),)
    assert opened.ask.seal_to == SEAL_TO


def test_a_question_is_not_answered_twice_at_once() -> None:
    """Asking in a loop costs the asker more than us; a repeat a little later is answered."""
    world, epoch, _ = committed_world()
    assert len(world.receive(world.ask(epoch, 1))) == 1
    assert world.receive(world.ask(epoch, 1)) == []
    world.now_s += 1
    assert len(world.receive(world.ask(epoch, 1))) == 1


NO_ASKS: list[Callable[[World, int], Relay]] = [
    lambda world, epoch: world.ask(epoch, 0, signer=STRANGER),
    lambda world, epoch: world.ask(epoch, 0, signer=GATEWAY_HOT),
    lambda world, epoch: world.ask(epoch, 0, validator=GATEWAY, signer=GATEWAY_HOT),
    lambda world, epoch: world.ask(epoch, 0, provider=OTHER),
    lambda world, epoch: world.ask(epoch + 1, 0),
    lambda world, epoch: Relay(VALIDATOR, ME, b"noise"),
]


@pytest.mark.parametrize("make", NO_ASKS)
def test_strangers_and_nonsense_open_nothing(make: Callable[[World, int], Relay]) -> None:
    """Only a registered validator's signature opens an epoch, and only one that is committed."""
    world, epoch, _ = committed_world()
    effects = world.receive(make(world, epoch))
    assert not [effect for effect in effects if not isinstance(effect, Noted)]


def test_only_what_the_beacon_drew_is_shown() -> None:
    """A validator that asks for receipts which weren't drawn gets no transcript of them."""
    world, epoch, _ = committed_world(receipts=40, rate_ppm=100_000, queue=100)
    drawn = find(world.receive(world.ask(epoch, *range(40), 41)), OpenEpoch).drawn
    assert 0 < len(drawn) < 20


def test_before_the_beacon_nothing_is_shown() -> None:
    """Between commitment and beacon the draw isn't known, so nobody gets a transcript."""
    world = ready()
    finished = world.serve()
    submit: Any = over(world)
    call = submit.call
    committed = (call.epoch, call.root, call.count, call.total, call.epoch + 1)
    world.mine(events.EpochCommitted(ME, *committed, 1_000_000))
    assert find(world.receive(world.ask(finished.receipt.epoch, 0)), OpenEpoch).drawn == ()


def test_a_challenge_is_answered_on_chain() -> None:
    """The challenged receipt is prepared and submitted once, in the open to whom we know no key of."""
    world, epoch, finished = committed_world()
    world.mine(world.demanded(epoch, 1))
    effects = world.tick()
    prepare = find(effects, Prepare)
    assert (prepare.order, prepare.seal_to) == (finished[1].receipt.order, None)
    assert find(effects, Submit, lambda it: it.key.startswith("answer")) == Submit(
        f"answer:{epoch}:1:0", AnswerChallenge(ME, epoch, 1, 0, 1, b"answer")
    )
    world.mine(events.AnswerPart(ME, epoch, 1, 0, 1, b"answer"), events.ChallengeAnswered(ME, epoch, 1))
    assert not [it for it in world.tick(20) if isinstance(it, Prepare)]


def parts_of(effects: list[Any], epoch: int) -> list[int]:
    """Parts of the answer about receipt 0 that are submitted."""
    submitted = [it.call for it in effects if isinstance(it, Submit)]
    return [it.part for it in submitted if isinstance(it, AnswerChallenge) and it.epoch == epoch]


def test_a_long_answer_is_given_in_parts_the_last_when_all_others_are_mined() -> None:
    """No more than sixteen are on their way at once, and what completes the answer isn't estimated before it does."""
    world, epoch, _ = committed_world()
    world.parts = tuple(bytes([part]) for part in range(20))
    world.mine(world.demanded(epoch, 0))
    assert parts_of(world.tick(), epoch) == [*range(16)]
    assert parts_of(world.tick(), epoch) == []
    for part in range(16):
        world.step(Mined(f"answer:{epoch}:0:{part}", TX, world.block + 1))
    world.mine(*(events.AnswerPart(ME, epoch, 0, part, 20, b"") for part in range(16)))
    assert parts_of(world.tick(), epoch) == [16, 17, 18]
    world.mine(*(events.AnswerPart(ME, epoch, 0, part, 20, b"") for part in (16, 17, 18)))
    (last,) = [it.call for it in world.tick() if isinstance(it, Submit)]
    assert last == AnswerChallenge(ME, epoch, 0, 19, 20, bytes([19]))
    world.mine(events.AnswerPart(ME, epoch, 0, 19, 20, b""), events.ChallengeAnswered(ME, epoch, 0))
    assert not world.tick(20)


def test_a_restarted_provider_gives_only_the_parts_that_the_chain_lacks() -> None:
    """It packs anew, and goes on until `finish`, since the first part came in time."""
    world, epoch, _ = committed_world()
    world.parts = (b"0", b"1", b"2")
    world.mine(world.demanded(epoch, 0))
    assert parts_of(world.tick(), epoch) == [0, 1]
    world.mine(events.AnswerPart(ME, epoch, 0, 1, 3, b"1"))
    world.restart()
    world.now_s += 12
    assert parts_of(world.tick(), epoch) == [0]
    world.mine(events.AnswerPart(ME, epoch, 0, 0, 3, b"0"))
    assert parts_of(world.tick(), epoch) == [2]
    world.now_s += 30
    assert parts_of(world.tick(), epoch) == []


def test_an_answer_packed_for_one_validator_is_not_given_to_another() -> None:
    """Sealed to who asked before, it would be fraud to who asks now."""
    world, epoch, _ = committed_world()
    world.mine(world.demanded(epoch, 0, by=OTHER))
    assert world.step(Prepared(epoch, 0, VALIDATOR, (b"sealed",))) == []


def test_a_full_epoch_takes_no_more_work() -> None:
    """What couldn't be shown on chain isn't made: the list holds no more receipts than an answer, those to come counted."""
    world = ready()
    made = world.book.epochs.by_epoch.setdefault(world.book.epochs.epoch_of_next(world.now_s), [])
    made += [Digest(order.to_bytes(32)) for order in range(MAX_RECEIPTS_PER_EPOCH - 1)]
    assert isinstance(world.receive(world.work())[0], Start)
    refused = refusal(world.receive(world.work()))
    assert (refused.code, refused.detail) == ("busy", "this epoch's receipts are full")


def test_a_request_too_long_for_the_chain_is_refused() -> None:
    """Its transcript could be demanded, and couldn't be shown."""
    world = ready()
    refused = refusal(world.receive(world.work(request=bytes(MAX_REQUEST_BYTES + 1))))
    assert refused.code == "bad_request"
    assert "couldn't be shown on chain" in refused.detail


def test_a_challenge_is_sealed_to_the_validators_newest_key() -> None:
    """The key of its last ask, of whatever epoch: in the open only for a validator that never asked."""
    world, epoch, _ = committed_world()
    world.receive(world.ask(epoch, 0))
    world.mine(world.demanded(epoch, 0))
    assert find(world.tick(), Prepare).seal_to == SEAL_TO


def test_the_list_itself_can_be_challenged() -> None:
    """Index EPOCH_LIST asks for all receipts and no transcript."""
    world, epoch, finished = committed_world()
    world.mine(world.demanded(epoch, EPOCH_LIST))
    prepare = find(world.tick(), Prepare)
    assert prepare.order is None
    assert prepare.receipts == tuple(it.receipt for it in finished)


def test_an_answer_that_does_not_exist_is_noted() -> None:
    """What can't be shown on chain is told to the operator, and not submitted."""
    world, epoch, _ = committed_world()
    assert find(world.step(Prepared(epoch, 0, VALIDATOR, ())), Noted).what == "unanswerable"


def test_old_challenges_are_left_alone() -> None:
    """A challenge past its deadline, or of an epoch that is forgotten or unknown, asks for nothing."""
    world, epoch, _ = committed_world()
    world.mine(
        msgspec.structs.replace(world.demanded(epoch, 0), deadline_s=int(world.now_s) - 5),
        world.demanded(epoch + 7, 0),
        world.demanded(epoch, 99),
        msgspec.structs.replace(world.demanded(epoch, 0), provider=OTHER),
    )
    assert not [it for it in world.tick() if isinstance(it, Prepare)]


def test_transcripts_are_forgotten_when_the_window_is_over() -> None:
    """Not before the window's last second by the chain's own blocks; the orders stay spent until they expire."""
    world, epoch, _ = committed_world()
    world.mine(seconds=WINDOW_S - 2)
    assert Forget(epoch) not in world.tick()
    world.mine(seconds=5)
    assert Forget(epoch) in world.tick()
    assert not world.book.epochs.made
    assert world.receive(world.ask(epoch, 0)) == []


def test_a_forgotten_order_is_still_not_done_again() -> None:
    """Between the window's end and its expiry an order is refused: a second receipt would be fraud."""
    world = ready()
    work = world.work()
    world.receive(work)
    world.answer(work, 7)
    submit = over(world)
    world.step(Mined(submit.key, TX, world.block + 1))
    world.commit(submit)
    world.mine(seconds=WINDOW_S + 5)
    world.tick()
    assert refusal(world.receive(work)).code == "expired"
    world.restart()
    assert refusal(world.receive(work)).code == "expired"
    world.mine(seconds=700)
    world.tick()
    assert not world.book.epochs.spent


def test_a_snapshot_restores_to_the_same_book() -> None:
    """Compaction keeps debts, lists, spent orders, vouchers and channels."""
    world, epoch, finished = committed_world()
    world.receive(world.pay(finished[0], 5))
    world.mine(seconds=WINDOW_S + 5)
    world.tick()
    later = world.serve()
    owed_wei = world.book.owed_wei(world.channel_id)
    world.journal = [canonical.encode(record) for record in world.book.snapshot()]
    size = len(world.journal)
    world.restart()
    assert world.book.owed_wei(world.channel_id) == owed_wei
    assert set(world.book.epochs.spent) == {Digest(it.receipt.order) for it in finished}
    assert list(world.book.epochs.made) == [later.receipt.order]
    assert world.book.epochs.forgotten == epoch
    assert len(world.book.snapshot()) == size


def test_frames_that_are_not_for_a_provider_are_passed_over() -> None:
    """A peer that sends providers' frames to a provider is simply not listened to."""
    world = ready()
    for frame in (Announce((), 0, 0, paused=False), Refused(bytes(32), "busy", "", 0)):
        assert world.step(Received(GATEWAY, frame)) == []
