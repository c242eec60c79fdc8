"""What really happened, from the frames alone: was this receipt right?

Knows each order and its request from the gateway's `Work`, draws the answer itself, and recounts. Shares no code
with gateway, provider or validator beyond the messages.
"""

from typing import Any

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Answer, Finished, Work
from clusterai.protocol.statements import Receipt
from clusterai.runtime.machine import Received, Send
from clusterai.runtime.simulator import Process
from clusterai.work.inference import decode_generation
from tests.simulation.world import engine


class Truth:
    """All orders and receipts that were ever sent.

    Attributes:
        receipts: by leaf.
    """

    def __init__(self) -> None:
        self.works: dict[Digest, Work] = {}
        self.receipts: dict[Digest, Receipt] = {}

    def stepped(self, process: Process, event: Any, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Send(_, Work() as work):
                    self.works[canonical.digest(work.order)] = work
                case Send(_, Finished(receipt)):
                    self.receipts[receipt.struct()] = receipt
                case _:
                    pass
        match event:
            case Received(_, Finished(receipt)):
                self.receipts[receipt.struct()] = receipt
            case _:
                pass

    def wrong(self, receipt: Receipt) -> str | None:
        """Why this receipt is not the truth; None for one that an honest provider may send."""
        work = self.works.get(Digest(receipt.order))
        if work is None:
            return "nobody ordered it"
        generation = decode_generation(work.request)
        whole, reason = engine.answer(
            generation.model, generation.prompt, generation.sampling.seed, generation.max_tokens
        )
        rest = whole[len(generation.so_far) :]
        if generation.so_far != whole[: len(generation.so_far)]:
            return "it goes on from tokens that nobody honest made"
        given = rest[: receipt.output_units]
        reasons = ("cancelled", reason) if len(given) == len(rest) else ("cancelled",)
        if receipt.answer not in [Answer(given, each).digest() for each in reasons]:
            return "its answer is not the model's"
        input_units = len(generation.prompt) + len(generation.so_far)
        if receipt.input_units != input_units or receipt.output_units != len(given):
            return "its usage is not what was used"
        input_wei, output_wei = work.order.input_price_wei, work.order.output_price_wei
        if receipt.amount_wei != input_units * input_wei + len(given) * output_wei:
            return "its amount is not the price"
        parties = (work.order.provider, work.order.gateway, work.order.model)
        if (receipt.provider, receipt.gateway, receipt.model) != parties:
            return "its parties are not the order's"
        return None
