"""What observers see of a gateway: money, providers and receipts as JSON, every number labelled.

measured  this gateway timed or counted it          claimed  somebody says so, signed, and may be caught lying
settled   the chain has it, and nothing undoes it
"""

from typing import Any

import msgspec

from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.moneystate import Channel, Charged, Payout
from clusterai.market.core.ranking import Rank, ranks
from clusterai.market.core.reputation import Reputation
from clusterai.protocol.ids import Address, Digest, Role, checksummed, did, hex0x
from clusterai.protocol.messages import ModelOffer


def status(meter: Meter, now_s: float) -> dict[str, Any]:
    me, book = meter.me, meter.book
    chain_s = meter.chain_time_s(now_s)
    return {
        "gateway": checksummed(me.owner),
        "did": did(me.owner, me.network.chain_id),
        "chain_id": me.network.chain_id,
        "registry": checksummed(me.network.contract),
        "block": meter.directory.block,
        "chain_time_s": int(chain_s),
        "epoch": int(chain_s) // me.epoch_s,
        "epoch_s": me.epoch_s,
        "window_s": me.window_s,
        "providers_linked": len(meter.routing.providers),
        "errands": len(meter.errands),
        "accounts": len(book.accounts),
        "funded_wei": sum(it.funded_wei for it in book.accounts.values()),
        "charged_wei": sum(it.charged_wei for it in book.accounts.values()),
        "refunded_wei": sum(it.refunded_wei for it in book.accounts.values()),
        "withdrawn_wei": sum(it.withdrawn_wei for it in book.accounts.values()),
        "borne_wei": book.borne_wei,
        "channels": [channel(it) for it in book.channels.values()],
        "numbers": {
            "block": "settled",
            "funded_wei": "settled",
            "charged_wei": "claimed",
            "refunded_wei": "settled",
            "withdrawn_wei": "claimed",
            "borne_wei": "claimed",
            "errands": "measured",
        },
    }


def channel(it: Channel) -> dict[str, Any]:
    return {
        "id": hex0x(it.channel_id),
        "provider": checksummed(it.provider),
        "balance_wei": it.balance_wei,
        "vouchered_wei": it.vouchered_wei,
        "claimed_wei": it.claimed_wei,
        "final_wei": it.final_wei,
        "barred": it.barred,
    }


def nodes(meter: Meter, reputation: Reputation, now_s: float) -> list[dict[str, Any]]:
    """Every registered provider, linked or not, and if it gets no work: why."""
    known = [
        owner
        for owner in (*meter.directory.holders(Role.PROVIDER), *meter.book.by_provider)
        if meter.directory.roles(owner) & Role.PROVIDER
    ]
    return [
        node(meter, owner, now_s) | _shown(reputation, owner, meter.directory.stake(owner), now_s)
        for owner in dict.fromkeys(known)
    ]


def one_node(meter: Meter, reputation: Reputation, owner: Address, now_s: float) -> dict[str, Any] | None:
    """One of `nodes`, with where each of its offers stands among others; None for who is no provider."""
    if not meter.directory.roles(owner) & Role.PROVIDER:
        return None
    found = node(meter, owner, now_s) | _shown(reputation, owner, meter.directory.stake(owner), now_s)
    return found | {"ranks": [_rank(it) for it in ranks(meter.routing, owner, now_s)]}


def _rank(it: Rank) -> dict[str, Any]:
    found = msgspec.structs.asdict(it)
    numbers = {
        "price_wei": "claimed",
        "place": "measured",
        "share": "measured",
        "wait_s": "measured",
        "answers_an_hour": "measured",
        "all_answers_an_hour": "measured",
    }
    return found | {"model": hex0x(it.model), "numbers": numbers}


def _shown(reputation: Reputation, owner: Address, stake_wei: int, now_s: float) -> dict[str, Any]:
    """What it has shown, as one number and line by line: by these it is chosen among others."""
    lines = reputation.explain(owner, stake_wei, now_s)
    quality = round(reputation.quality(owner, stake_wei, now_s), 4)
    return {"quality": quality, "explained": [msgspec.to_builtins(line) for line in lines]}


def offers(meter: Meter, model: Digest) -> list[ModelOffer]:
    """At what a model can be had now: from providers that are linked, willing, and have a channel with money in it."""
    found: list[ModelOffer] = []
    for provider, offer in meter.routing.offers(model):
        paid = meter.book.by_provider.get(provider)
        able = not meter.routing.providers[provider].paused and not meter.directory.barred(provider)
        if able and paid is not None and paid.balance_wei:
            found.append(offer)
    return found


def node(meter: Meter, owner: Address, now_s: float) -> dict[str, Any]:
    standing = meter.routing.providers.get(owner)
    paid = meter.book.by_provider.get(owner)
    barred = meter.directory.barred(owner)
    found: dict[str, Any] = {
        "provider": checksummed(owner),
        "stake_wei": meter.directory.stake(owner),
        "barred": barred,
        "linked": standing is not None,
        "state": "barred" if barred else "offline" if standing is None else "ready",
        "channel": None if paid is None else channel(paid),
        "models": [],
        "numbers": {
            "stake_wei": "settled",
            "price_wei": "claimed",
            "running": "claimed",
            "first_token_s": "measured",
            "orders_here": "measured",
        },
    }
    if standing is None:
        return found
    left_s = standing.suspended_until_s - now_s
    if not barred:
        if left_s > 0:
            found["state"] = f"suspended for {left_s:.0f} s: {standing.last_failure}"
        elif standing.paused:
            found["state"] = "paused by its operator"
        elif not standing.offers:
            found["state"] = "serves no model"
        elif paid is None or paid.balance_wei == 0:
            found["state"] = "its payment channel is being opened"
    found["models"] = [
        {
            "name": offer.name,
            "address": hex0x(offer.model),
            "input_price_wei": offer.input_price_wei,
            "output_price_wei": offer.output_price_wei,
            "slots": offer.slots,
        }
        for offer in standing.offers.values()
    ]
    found |= {
        "running": standing.running,
        "queued": standing.queued,
        "orders_here": standing.ours,
        "first_token_s": round(standing.first_token_s, 3),
        "failures_in_a_row": standing.failures,
        "cleared_epochs": standing.cleared,
    }
    return found


def account(meter: Meter, name: Digest) -> dict[str, Any]:
    it = meter.book.accounts.get(name)
    return {
        "account": hex0x(name),
        "gateway": checksummed(meter.me.owner),
        "credit_wei": it.credit_wei if it else 0,
        "held_wei": it.held_wei if it else 0,
        "funded_wei": it.funded_wei if it else 0,
        "charged_wei": it.charged_wei if it else 0,
        "refunded_wei": it.refunded_wei if it else 0,
        "withdrawn_wei": it.withdrawn_wei if it else 0,
        "tabbed_wei": it.tabbed_wei if it else 0,
        "numbers": {
            "funded_wei": "settled",
            "charged_wei": "claimed",
            "held_wei": "measured",
            "tabbed_wei": "measured",
        },
    }


def payout(meter: Meter, it: Payout) -> dict[str, Any]:
    """A withdrawal: `paying` until the chain has carried it out, and why it hasn't."""
    name = Digest(it.name)
    paid = name not in meter.book.unpaid
    transaction = meter.book.paid_by.get(name)
    return {
        "id": hex0x(name),
        "account": hex0x(it.account),
        "to": checksummed(Address(it.to)),
        "amount_wei": it.amount_wei,
        "state": "paid" if paid else "paying",
        "reason": meter.payouts.trouble.get(name, ""),
        "transaction": None if transaction is None else hex0x(transaction),
        "asked_s": it.asked_s,
        "numbers": {"amount_wei": "settled" if paid else "claimed"},
    }


def receipt(
    meter: Meter, charged: Charged, refunded_wei: int, epoch: dict[str, Any] | None, *, own: bool
) -> dict[str, Any]:
    """Who did what for how much, and how far its audit and payment are.

    `state`: paid (by voucher) → committed (on chain) → verified (its epoch was audited and cleared) → settled (nothing
    undoes it), or refunded (its provider was convicted, or its request failed and the gateway bears it).
    """
    it = charged.receipt
    final = Digest(it.order) not in meter.book.paid
    state = "paid"
    if refunded_wei:
        state = "refunded"
    elif final:
        state = "settled"
    elif epoch is not None:
        state = {"committed": "committed", "cleared": "verified"}.get(epoch["state"], "convicted")
    found: dict[str, Any] = {
        "id": hex0x(it.order),
        "state": state,
        "provider": checksummed(Address(it.provider)),
        "gateway": checksummed(Address(it.gateway)),
        "model": hex0x(it.model),
        "answer": hex0x(it.answer),
        "input_units": it.input_units,
        "output_units": it.output_units,
        "price_wei": it.amount_wei,
        "refunded_wei": refunded_wei,
        "epoch": it.epoch,
        "at_s": charged.at_s,
        "leaf": hex0x(it.struct()),
        "signature": hex0x(charged.signature),
        "order_signature": hex0x(charged.order_signature),
        "channel": hex0x(charged.channel_id),
        "voucher_wei": charged.vouchered_wei,
        "epoch_on_chain": epoch,
        "numbers": {
            "input_units": "measured",
            "output_units": "measured",
            "price_wei": "settled" if state == "settled" else "claimed",
            "refunded_wei": "settled",
        },
    }
    if own:
        found["account"] = hex0x(charged.account)
    return found
