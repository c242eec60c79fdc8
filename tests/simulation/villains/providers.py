"""Providers that cheat. Each is the honest host or machine with one thing done otherwise.

SwapsWeights     another model's tokens under the promised model's name: nearly the same, now and then
EditsTokens      one token of each answer replaced
SkipsPrompt      half of the prompt never read
OverclaimsUsage  more tokens on the receipt, and on the commitment, than were made
Overcharges      the whole of the order's cap on the receipt, whatever was used of it
ReplaysReceipt   an old receipt counted again in a new epoch
HidesTranscript  opens nothing: neither to validators nor on chain
GivesHalf        opens nothing to validators, and on chain half of the parts that it announced
RunsPast         an engine that doesn't see its answers' ends; nobody's enemy, and not to be paid for it
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from clusterai.ledger.core.calls import AnswerChallenge, CommitEpoch, Submit
from clusterai.node.core.leasebook import LeaseBook
from clusterai.node.core.leases import OpenEpoch, Prepare
from clusterai.protocol import merkle
from clusterai.protocol.ids import Digest
from clusterai.protocol.messages import Finished
from clusterai.protocol.statements import Receipt, signing_digest
from clusterai.runtime.machine import Send
from clusterai.work.inference import Generation
from tests.simulation.world import engine
from tests.simulation.world.gateways import NETWORK
from tests.simulation.world.providers import Provider


class Cheat(Provider):
    """Cheats are cheaper: what they save lets them undercut the honest, and so they get more of the work."""

    input_wei = 1
    output_wei = 4


class SwapsWeights(Cheat):
    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        whole, reason = engine.answer(
            generation.model, generation.prompt, generation.sampling.seed, generation.max_tokens, altered=True
        )
        # The altered model may have ended before the tokens that it was to go on from.
        return whole[len(generation.so_far) :] or (engine.END_BELOW + 1,), reason


class EditsTokens(Cheat):
    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        tokens, reason = super().answer(generation)
        place = len(tokens) // 2
        return (*tokens[:place], tokens[place] ^ 0x5555, *tokens[place + 1 :]), reason


class SkipsPrompt(Cheat):
    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        shorter = generation.prompt[len(generation.prompt) // 2 :]
        return super().answer(msgspec.structs.replace(generation, prompt=shorter))


class Wrapped:
    """A machine whose effects are changed on their way out. The machine itself is the honest one."""

    RECORDS = LeaseBook.RECORDS

    def __init__(self, book: LeaseBook, change: Callable[[LeaseBook, Any], Any]) -> None:
        self.book = book
        self.directory = book.directory
        self._change = change

    def restore(self, records: Iterable[Any]) -> None:
        self.book.restore(records)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        return self.book.snapshot()

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        changed = [self._change(self.book, effect) for effect in self.book.step(event, now_s)]
        return [effect for effect in changed if effect is not None]


class Forger(Cheat):
    """Commits to, and opens, another list of receipts than it made."""

    def build(self) -> Any:
        return Wrapped(super().build(), self.change)

    def forged(self, epoch: int, receipts: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
        raise NotImplementedError

    def sign(self, receipt: Receipt) -> bytes:
        return self.party.hot.sign(signing_digest(receipt, NETWORK))

    def change(self, book: LeaseBook, effect: Any) -> Any:
        match effect:
            case Submit(key, CommitEpoch(epoch)):
                receipts = tuple(book.epochs.made[order].receipt for order in book.epochs.lists[epoch])
                forged = self.forged(epoch, receipts)
                root = merkle.root([receipt.struct() for receipt in forged])
                total_wei = sum(receipt.amount_wei for receipt in forged)
                return Submit(key, CommitEpoch(epoch, root, len(forged), total_wei))
            case OpenEpoch(_, ask, receipts):
                forged = self.forged(ask.epoch, receipts)
                signatures = tuple(self.sign(receipt) for receipt in forged)
                return msgspec.structs.replace(effect, receipts=forged, signatures=signatures)
            case Prepare(epoch, _, _, receipts):
                return msgspec.structs.replace(effect, receipts=self.forged(epoch, receipts))
            case _:
                return effect


class OverclaimsUsage(Forger):
    def forged(self, epoch: int, receipts: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
        return tuple(map(self.inflated, receipts))

    def inflated(self, receipt: Receipt) -> Receipt:
        return msgspec.structs.replace(
            receipt,
            output_units=receipt.output_units + 5,
            amount_wei=receipt.amount_wei + 5 * self.output_wei,
        )

    def change(self, book: LeaseBook, effect: Any) -> Any:
        match effect:
            case Send(to, Finished(receipt) as finished) if receipt.output_units % 3 == 0:
                inflated = self.inflated(receipt)
                return Send(
                    to, msgspec.structs.replace(finished, receipt=inflated, signature=self.sign(inflated))
                )
            case _:
                return super().change(book, effect)


class Overcharges(Forger):
    def forged(self, epoch: int, receipts: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
        return tuple(map(self.inflated, receipts))

    def inflated(self, receipt: Receipt) -> Receipt:
        kept = self.transcript(receipt.epoch, Digest(receipt.order))
        return receipt if kept is None else msgspec.structs.replace(receipt, amount_wei=kept.order.cap_wei)

    def change(self, book: LeaseBook, effect: Any) -> Any:
        match effect:
            case Send(to, Finished(receipt) as finished) if receipt.output_units % 3 == 0:
                inflated = self.inflated(receipt)
                return Send(
                    to, msgspec.structs.replace(finished, receipt=inflated, signature=self.sign(inflated))
                )
            case _:
                return super().change(book, effect)


class ReplaysReceipt(Forger):
    def __init__(self, *arguments: Any) -> None:
        self._committed: dict[int, tuple[Receipt, ...]] = {}
        super().__init__(*arguments)

    def forged(self, epoch: int, receipts: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
        known = self._committed.get(epoch)
        if known is None:
            old = next((it[0] for it in self._committed.values()), None)
            again = () if old is None else (msgspec.structs.replace(old, epoch=epoch),)
            known = self._committed[epoch] = receipts + again
        return known


class HidesTranscript(Cheat):
    def build(self) -> Any:
        return Wrapped(super().build(), self.change)

    def change(self, book: LeaseBook, effect: Any) -> Any:
        hidden = isinstance(effect, OpenEpoch) or (
            isinstance(effect, Submit) and isinstance(effect.call, AnswerChallenge)
        )
        return None if hidden else effect


class GivesHalf(HidesTranscript):
    def change(self, book: LeaseBook, effect: Any) -> Any:
        match effect:
            case Submit(key, AnswerChallenge(parts=parts) as call):
                return Submit(key, msgspec.structs.replace(call, parts=2 * parts))
            case _:
                return super().change(book, effect)


class RunsPast(Cheat):
    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        tokens, reason = super().answer(generation)
        left = generation.max_tokens - len(generation.so_far) - len(tokens)
        return tokens + (engine.END_BELOW + 1,) * min(left, 40), reason


CHEATS: dict[str, type[Provider]] = {
    it.__name__: it
    for it in (
        SwapsWeights,
        EditsTokens,
        SkipsPrompt,
        OverclaimsUsage,
        Overcharges,
        ReplaysReceipt,
        HidesTranscript,
        GivesHalf,
    )
}
