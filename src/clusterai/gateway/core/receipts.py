"""What a provider says is checked before it costs anything.

That it was asked, who signed, the answer's digest against the tokens that were delivered, the usage recounted, the price that the
order states, the cap, the epoch.
"""

from clusterai.gateway.core.errands import Open
from clusterai.gateway.core.party import Party
from clusterai.market.core.directory import Directory
from clusterai.protocol.eip712 import typed_digest
from clusterai.protocol.messages import Answer, Finished

REASONS = ("stop", "length", "cancelled")


def wrong(
    opened: Open, frame: Finished, me: Party, directory: Directory, chain_s: float
) -> tuple[str, str] | None:
    """What is wrong with a receipt, as (code, detail)."""
    receipt, order, kind = frame.receipt, opened.order, opened.errand.ask.kind
    if (receipt.provider, receipt.gateway, receipt.model) != (order.provider, order.gateway, order.model):
        return "wrong_parties", "the receipt names other parties or another model than the order"
    tokens = tuple(opened.tokens)
    cancelled = opened.errand.abandoned or opened.cut
    if frame.reason not in REASONS or (frame.reason == "cancelled" and not cancelled):
        return "wrong_end", f"an answer that nobody cancelled doesn't end by {frame.reason[:16]!r}"
    if receipt.answer != Answer(tokens, frame.reason).digest():
        return "answer_mismatch", f"its answer isn't the {len(tokens)} tokens that arrived here"
    counted = kind.recount(opened.value, tokens)
    if (receipt.input_units, receipt.output_units) != counted:
        return "usage_mismatch", f"it counts {receipt.input_units} + {receipt.output_units}, we {counted}"
    if kind.wrong is not None and (why := kind.wrong(opened.value, tokens, frame.reason)) is not None:
        return "impossible_answer", why
    price_wei = order.price_wei(*counted)
    if receipt.amount_wei != price_wei:
        return "wrong_price", f"it asks {receipt.amount_wei} wei, at the order's prices it is {price_wei}"
    if receipt.amount_wei > order.cap_wei:
        return "over_cap", f"{receipt.amount_wei} wei is above the order's cap of {order.cap_wei}"
    epoch = int(chain_s) // me.epoch_s
    if abs(receipt.epoch - epoch) > 1:
        return "stale_epoch", f"the receipt is of epoch {receipt.epoch}, now is {epoch}"
    signer = me.recover(typed_digest(me.network.separator(), receipt.struct()), frame.signature)
    if signer is None or directory.owner_of(signer) != order.provider:
        return "bad_signature", "the receipt isn't signed by a key that may act for the provider"
    return None
