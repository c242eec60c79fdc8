"""What a client was told is true: the model's very tokens, whole, charged once, and with a receipt on both sides.

Watches gateways' steps and providers' records. Answers are drawn here again; where a villain may have served, the
tokens aren't judged (the audit does that later), but charges and receipts are.
"""

from typing import Any

import msgspec

from clusterai.gateway.core.errands import Ask, Deliver, Done, Failed, Restarted
from clusterai.gateway.core.moneystate import Charged
from clusterai.node.core.leases import Made
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import Receipt
from clusterai.runtime.machine import Save, Started
from clusterai.runtime.simulator import Process
from clusterai.work.inference import Generation
from tests.simulation.checkers.blocks import require
from tests.simulation.world import engine


class Open(msgspec.Struct):
    generation: Generation
    streamed: bool
    tokens: list[int] = msgspec.field(default_factory=list)


class AnswersTrue:
    """
    Args:
        gateways, villains: by address; with villains among the providers, tokens aren't judged.

    Attributes:
        acknowledged: charges that a client was told of, by order.
    """

    def __init__(self, gateways: frozenset[Address], villains: dict[Address, str]) -> None:
        self._gateways = gateways
        self._villains = villains
        self._open: dict[tuple[Address, int], Open] = {}
        self._made: dict[Digest, Receipt] = {}
        self._charged: dict[Digest, Charged] = {}
        self.acknowledged: dict[Digest, Charged] = {}
        self.failed_over = 0
        self.free = 0

    def stepped(self, process: Process, event: Any, effects: list[Any]) -> None:
        if process.address not in self._gateways:
            for effect in effects:
                if isinstance(effect, Save) and isinstance(effect.record, Made):
                    self._made[Digest(effect.record.receipt.order)] = effect.record.receipt
            return
        if isinstance(event, Started):
            self._open = {key: it for key, it in self._open.items() if key[0] != process.address}
        elif isinstance(event, Ask):
            self._open[process.address, event.errand] = Open(event.request, event.streamed)
        for effect in effects:
            match effect:
                case Save(Charged() as charged):
                    self._charged[Digest(charged.receipt.order)] = charged
                case Deliver(errand, tokens):
                    self._open[process.address, errand].tokens.extend(tokens)
                case Restarted(errand):
                    opened = self._open[process.address, errand]
                    read = opened.streamed and opened.tokens
                    require(not read, "what a client has read isn't taken back", errand)
                    opened.tokens.clear()
                case Done(errand):
                    self._done(process.address, effect)
                case Failed(errand):
                    del self._open[process.address, errand]
                case _:
                    pass

    def _done(self, gateway: Address, done: Done) -> None:
        opened = self._open.pop((gateway, done.errand), None)
        require(opened is not None, "an errand ends once", done.errand)
        assert opened is not None, "as required"
        generation, tokens = opened.generation, tuple(opened.tokens)
        if not self._villains and not done.abandoned:
            whole, reason = engine.answer(
                generation.model, generation.prompt, generation.sampling.seed, generation.max_tokens
            )
            require(tokens == whole, "the client reads the model's very tokens", done.errand, tokens, whole)
            require(done.reason == reason, "it ends as the model ends it", done.reason, reason)
        if done.charged is None:
            self.free += 1
            return
        receipt = done.charged.receipt
        order = Digest(receipt.order)
        require(self._charged.get(order) == done.charged, "a charge is durable before it is told", order)
        require(self._made.get(order) == receipt, "its provider keeps the receipt of what it is paid", order)
        read = len(generation.prompt) + len(tokens)
        charged = receipt.input_units + receipt.output_units
        require(charged == read, "each token is charged once", done.errand, charged, read)
        self.failed_over += receipt.input_units > len(generation.prompt)
        self.acknowledged[order] = done.charged
