"""A stage for auditors: the twin of the chain, real keys and boxes, a tiny model, and time that the test moves.

    stage = Stage(); stage.serve(4); stage.commit(); stage.play(until=…)

Everything between the machines can be told to misbehave: gateways lie or are away, providers hide or are slow, the
chain stands still or changes its mind, validators die between any two effects.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast

import msgspec
from blake3 import blake3

from clusterai.audit.adapters.sealing import SealKey, seal
from clusterai.audit.core.evidence import Bundle
from clusterai.audit.core.opening import open_list, open_receipt, pack_answer
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.rules import LOCAL
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.protocol import canonical, merkle
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.messages import Answer, AskEpoch, EpochOpened, Relay, Relayed, Transcript, Unreachable
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.signing import Key, recover, signed_by
from clusterai.protocol.statements import (
    EPOCH_LIST,
    Order,
    Receipt,
    court_domain,
    network_domain,
    signing_digest,
)
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick
from clusterai.validator.core.auditor import Auditor
from clusterai.validator.core.settings import Settings
from clusterai.validator.core.words import Check, Checked, CheckFailed, Forget, Keep, Noted
from clusterai.work import KINDS
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.core import tiny
from clusterai.work.inference.core.sampler import Context, gap
from clusterai.work.kind import Findings

CHAIN_ID = 31415
START_S = 1_000_005 // 15 * 15
ADDRESSES = Addresses(*(Address(blake3(name.encode()).digest(20)) for name in Addresses.__struct_fields__))
NETWORK = network_domain(CHAIN_ID, ADDRESSES.registry)
COURT = court_domain(CHAIN_ID, ADDRESSES.court)
MODEL = tiny.ADDRESS
TOKEN = WEI_PER_TOKEN
RULES = msgspec.structs.replace(LOCAL, audit_rate_ppm=1_000_000)
"""Every receipt is drawn, unless a test says otherwise."""

MATCH_MILLI, MISS_MILLI = -100, 2_300
"""An honest engine misses under 1 % of tokens, a cheat 10 % or more: ln(.9/.99), ln(.1/.01)."""


@lru_cache(maxsize=512)
def key(name: str) -> Key:
    return Key(blake3(name.encode()).digest())


def findings_of(transcript: Transcript, altered: float = 0.0) -> Findings:
    """Draw each token again, given those before it."""
    generation = canonical.decode(transcript.request, Generation)
    model = tiny.TinyModel(generation.model, altered)
    state = model.start()
    for token in generation.prompt + generation.so_far:
        state = model.after(state, token)
    penalties = Context(generation.sampling, generation.prompt, generation.so_far)
    matches, largest = 0, 0.0
    for at, token in enumerate(transcript.answer.tokens):
        distance = gap(
            model.logits(state), generation.sampling, len(generation.so_far) + at, token, penalties
        )
        matches += distance == 0
        largest = max(largest, min(distance, 1e6))
        penalties.push(token)
        state = model.after(state, token)
    total = len(transcript.answer.tokens)
    weight = matches * MATCH_MILLI + (total - matches) * MISS_MILLI
    return Findings(total, matches, weight, int(largest * 1000))


class Provider:
    """Serves, commits, opens. Subclasses are villains."""

    altered = 0.0

    def __init__(self, stage: "Stage", name: str = "provider") -> None:
        self.stage = stage
        self.owner, self.hot = key(name), key(f"{name} hot")
        self.epochs: dict[int, list[tuple[Receipt, bytes, Transcript]]] = {}
        self.open: list[tuple[Receipt, bytes, Transcript]] = []
        self.seals: dict[Address, bytes] = {}
        self.away = False
        self.away_from_chain = False

    def serve(self, seed: int, max_tokens: int = 48, cap_wei: int = 10_000) -> None:
        prompt = tiny.encode(f"request {seed} of a patient customer")
        generation = Generation(MODEL, prompt, Sampling(seed=seed), max_tokens=max_tokens)
        request = generation.canonical()
        order = Order(
            gateway=self.stage.gateways[0].address,
            provider=self.owner.address,
            model=MODEL,
            request=canonical.content_digest(request),
            channel_id=ZERO_DIGEST,
            input_price_wei=1,
            output_price_wei=2,
            cap_wei=cap_wei,
            expires_s=self.stage.now_s + 60,
            nonce=Digest(blake3(b"%d" % seed).digest()),
        )
        signature = key("gateway 0 hot").sign(signing_digest(order, NETWORK))
        tokens, reason = self.answer(generation)
        answer = Answer(tokens, reason)
        transcript = Transcript(order, signature, "inference", request, answer)
        self.finish(transcript, len(prompt))

    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        return tiny.answer(tiny.TinyModel(MODEL, self.altered), generation)

    def finish(self, transcript: Transcript, prompt: int, **claims: int) -> None:
        usage = {"input_units": prompt, "output_units": len(transcript.answer.tokens)} | claims
        receipt = Receipt(
            order=canonical.digest(transcript.order),
            provider=self.owner.address,
            gateway=transcript.order.gateway,
            model=transcript.order.model,
            answer=transcript.answer.digest(),
            amount_wei=transcript.order.price_wei(**usage),
            epoch=self.stage.epoch,
            **usage,
        )
        self.open.append((receipt, self.hot.sign(signing_digest(receipt, NETWORK)), transcript))

    def commit(self, total: int | None = None) -> None:
        """Commit the epoch that `serve` filled; to be called in a later one."""
        receipts = [receipt for receipt, _, _ in self.open]
        epoch = receipts[0].epoch
        self.epochs[epoch], self.open = self.open, []
        right = sum(receipt.amount_wei for receipt in receipts)
        root = merkle.root([receipt.struct() for receipt in receipts])
        call = calls.CommitEpoch(epoch, root, len(receipts), right if total is None else total)
        self.stage.submit(self.hot, call)

    def asked(self, ask: AskEpoch) -> EpochOpened | None:
        assert signed_by(self.stage.hot_of(ask.validator), ask.signing_digest(NETWORK), ask.signature), (
            "asks are signed"
        )
        self.seals[Address(ask.validator)] = ask.seal_to
        kept = self.epochs.get(ask.epoch)
        if kept is None or self.away:
            return None
        sealed = tuple(
            (index, seal(canonical.encode(kept[index][2]), ask.seal_to))
            for index in ask.drawn
            if self.shows(index)
        )
        receipts, signatures = tuple(it[0] for it in kept), tuple(it[1] for it in kept)
        return EpochOpened(self.owner.address, ask.epoch, receipts, signatures, sealed)

    def shows(self, index: int) -> bool:
        return True

    def challenged(self, by: Address, epoch: int, index: int) -> None:
        if self.away_from_chain:
            return
        kept = self.epochs[epoch]
        receipts = [it[0] for it in kept]
        opening = (
            open_list(receipts) if index == EPOCH_LIST else open_receipt(receipts, index, kept[index][2])
        )
        to = self.seals.get(by)
        packed = pack_answer(opening, None if to is None else lambda plain: seal(plain, to))
        self.give(epoch, index, packed)

    def give(self, epoch: int, index: int, packed: tuple[bytes, ...]) -> None:
        for part, sealed in enumerate(packed):
            call = calls.AnswerChallenge(self.owner.address, epoch, index, part, len(packed), sealed)
            self.stage.submit(self.hot, call)


class Gateway:
    """Carries relays. Subclasses lie."""

    def __init__(self, name: str) -> None:
        self.address = key(name).address
        self.away = False

    def carry(self, opened: EpochOpened) -> EpochOpened | None:
        return None if self.away else opened


class Seat:
    """One validator's process: the machine, its journal, and simple adapters."""

    def __init__(self, stage: "Stage", name: str, engine_altered: float = 0.0) -> None:
        self.stage = stage
        self.owner, self.hot = key(name), key(f"{name} hot")
        self.box = SealKey(blake3(f"{name} seal".encode()).digest())
        self.journal: list[bytes] = []
        self.kept: dict[Digest, Bundle] = {}
        self.forgotten: list[tuple[Address, int]] = []
        self.notes: list[Noted] = []
        self.submitted: list[Submit] = []
        self.engine_altered = engine_altered
        self.engine_fails = False
        self.engine_slow = False
        self.stopped = False
        self.crash_at: int | None = None
        self.effects = 0
        self.crashes = 0
        self.machine = self.build()

    def build(self) -> Auditor:
        settings = Settings(
            me=self.owner.address,
            seal_to=self.box.public,
            network=NETWORK,
            court=COURT,
            rules=self.stage.rules,
            confirmations=self.stage.confirmations,
        )
        return Auditor(settings, KINDS, self.hot.sign, recover, self.box.unseal)

    def restart(self) -> None:
        """As after kill -9: the journal, and the chain from its first block."""
        self.crashes += 1
        self.machine = self.build()
        decoder = msgspec.msgpack.Decoder(Auditor.RECORDS)
        self.machine.restore(decoder.decode(record) for record in self.journal)
        self.step(Started())
        for gateway in self.stage.gateways:
            self.step(Linked(gateway.address))
        for told in self.stage.history:
            self.step(told)

    def compact(self) -> None:
        self.journal = [canonical.encode(record) for record in self.machine.snapshot()]

    def step(self, event: Any) -> None:
        if self.stopped:
            return
        for effect in self.machine.step(event, float(self.stage.now_s)):
            if self.crash_at is not None and self.effects == self.crash_at:
                self.crash_at = None
                self.restart()
                return
            self.effects += 1
            self.perform(effect)

    def perform(self, effect: Any) -> None:
        match effect:
            case Save(record):
                self.journal.append(canonical.encode(record))
            case Send(to, Relay() as relay):
                self.stage.outbox.append((self, to, relay))
            case Submit():
                self.submitted.append(effect)
                self.stage.submit(self.hot, effect.call, self, effect.key)
            case Check():
                self.stage.later.append(lambda: self.check(effect))
            case Keep(evidence, _, bundle):
                self.kept[evidence] = canonical.decode(canonical.encode(bundle), Bundle)
            case Forget(provider, epoch):
                self.forgotten.append((provider, epoch))
            case Noted():
                self.notes.append(effect)
            case _:
                raise AssertionError(effect)

    def check(self, effect: Check) -> None:
        place = (effect.provider, effect.epoch, effect.index, effect.leaf)
        if self.engine_slow:
            return
        if self.engine_fails:
            self.step(CheckFailed(*place, "out of memory", final=False))
        else:
            self.step(Checked(*place, findings_of(effect.transcript, self.engine_altered)))

    def noted(self, kind: str) -> list[Noted]:
        return [note for note in self.notes if note.kind == kind]

    def votes(self) -> list[calls.Vote]:
        return [it.call for it in self.submitted if isinstance(it.call, calls.Vote)]


class Stage:
    """See the module."""

    def __init__(
        self,
        provider: Callable[["Stage"], Provider] = Provider,
        gateways: Iterable[Gateway] | None = None,
        validators: int = 1,
        rate_ppm: int = 1_000_000,
        confirmations: int = 1,
        seat: Callable[["Stage", str], Seat] = Seat,
        rules: Any = RULES,
    ) -> None:
        self.rules = msgspec.structs.replace(rules, audit_rate_ppm=rate_ppm)
        self.confirmations = confirmations
        self.now_s = START_S
        self.height = 0
        self.chain_away = False
        self.salt = 0
        self.history: list[Any] = []
        self.waiting: list[tuple[Key, calls.Call, Seat | None, str]] = []
        self.outbox: list[tuple[Seat, Address, Relay]] = []
        self.later: list[Callable[[], None]] = []
        self.marks: list[tuple[int, int, int]] = []
        deployer = key("deployer")
        self.chain = TwinChain(CHAIN_ID, ADDRESSES, deployer.address, self.rules)
        self.gateways = tuple(gateways if gateways is not None else (Gateway("gateway 0"),))
        self.provider = provider(self)
        self.seats: list[Seat] = []
        self._register(deployer, "gateway 0", Role.GATEWAY)
        self._register(deployer, "provider", Role.PROVIDER)
        for number in range(validators):
            self._register(deployer, f"validator {number}", Role.VALIDATOR)
        self.block()
        self.seats = [seat(self, f"validator {number}") for number in range(validators)]
        for it in self.seats:
            it.step(Started())
            for gateway in self.gateways:
                it.step(Linked(gateway.address))
            for told in self.history:
                it.step(told)

    def _register(self, deployer: Key, name: str, role: Role) -> None:
        owner, hot = key(name), key(f"{name} hot")
        for to in (owner, hot):
            self.submit(deployer, calls.Transfer(to.address, 1_000 * TOKEN))
        self.submit(owner, calls.Register(int(role), ZERO_DIGEST))
        self.submit(owner, calls.delegate(owner.address, hot.address, hot.sign, NETWORK))
        self.submit(owner, calls.Approve(ADDRESSES.registry, 1_000 * TOKEN))
        self.submit(owner, calls.Bond(500 * TOKEN))

    @property
    def epoch(self) -> int:
        return self.now_s // self.rules.epoch_s

    @property
    def seat(self) -> Seat:
        return self.seats[0]

    def hot_of(self, owner: bytes) -> Address:
        return next(seat.hot.address for seat in self.seats if seat.owner.address == owner)

    # --- the chain ---

    def submit(self, sender: Key, call: calls.Call, seat: Seat | None = None, name: str = "") -> None:
        self.waiting.append((sender, call, seat, name))

    def block(self) -> None:
        """Mine what waits; tell everyone."""
        prevrandao = blake3(b"%d %d" % (self.height, self.salt)).digest()
        context = BlockContext(self.height, self.now_s, prevrandao)
        self.marks.append((self.height, self.chain.mark(), len(self.history)))
        mined, self.waiting = self.waiting, []
        told: list[Any] = []
        outcomes: list[tuple[Seat, Any]] = []
        for sender, call, seat, name in mined:
            outcome = self.chain.execute(call, sender.address, context)
            if isinstance(outcome, Refused):
                assert seat is not None or not self.seats, (call, outcome)
                if seat is not None:
                    outcomes.append((seat, Reverted(name, outcome.reason)))
                continue
            told.extend(outcome)
            if seat is not None:
                outcomes.append((seat, Mined(name, ZERO_DIGEST, self.height)))
        told.append(events.Block(self.height, self.now_s))
        self.height += 1
        self._tell(told)
        for seat, event in outcomes:
            seat.step(event)

    def _tell(self, told: list[Any]) -> None:
        self.history.extend(told)
        for seat in self.seats:
            for event in told:
                seat.step(event)
        for event in told:
            if isinstance(event, events.Challenged):
                self.provider.challenged(event.validator, event.epoch, event.index)

    def reorganise(self, number: int, again: bool = True) -> None:
        """Undo all blocks above `number`; their transactions of providers wait again unless dropped."""
        height, mark, told = self.marks[number + 1]
        del self.marks[number + 1 :]
        self.chain.rollback(mark)
        self.height = height
        self.salt += 1
        del self.history[told:]
        self.history.append(events.RolledBack(number))
        for seat in self.seats:
            seat.step(events.RolledBack(number))

    # --- time ---

    def play(self, seconds: int) -> None:
        """A block every 2 s, a tick every second, messages within one."""
        for _ in range(seconds):
            self.now_s += 1
            if self.now_s % 2 == 0 and not self.chain_away:
                self.block()
            for seat in self.seats:
                seat.step(Tick())
            self._carry()
            later, self.later = self.later, []
            for act in later:
                act()

    def _carry(self) -> None:
        outbox, self.outbox = self.outbox, []
        for seat, to, relay in outbox:
            gateway = next(it for it in self.gateways if it.address == to)
            ask = canonical.decode(relay.body, cast("type[AskEpoch | EpochOpened]", Relayed))
            assert isinstance(ask, AskEpoch)
            opened = self.provider.asked(ask)
            carried = None if opened is None or gateway.away else gateway.carry(opened)
            if carried is not None:
                body = canonical.encode(carried)
                seat.step(Received(to, Relay(self.provider.owner.address, seat.owner.address, body)))
            elif not gateway.away:
                seat.step(Received(to, Unreachable(self.provider.owner.address)))

    def next_epoch(self) -> None:
        self.play(self.rules.epoch_s - self.now_s % self.rules.epoch_s + 1)

    def serve(self, count: int, first: int = 0) -> None:
        for number in range(count):
            self.provider.serve(first + number)

    def commit(self, total: int | None = None) -> None:
        """End the epoch and commit it."""
        self.next_epoch()
        self.provider.commit(total)

    # --- what came of it ---

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.history if isinstance(event, kind)]

    @property
    def convicted(self) -> bool:
        return bool(self.told(events.Convicted))

    @property
    def cleared(self) -> int:
        return len(self.told(events.EpochCleared))
