"""A lease book between a gateway, a validator and a chain, all played by the test."""

from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Submit
from clusterai.market.core.directory import Directory
from clusterai.node.core.leasebook import LeaseBook, Terms
from clusterai.node.core.leases import Keep, Kept, Made, Prepare, Prepared, Produced, Serving, Start
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.messages import (
    Answer,
    AskEpoch,
    Finished,
    ModelOffer,
    OpenChannel,
    Pay,
    Refused,
    Relay,
    Work,
)
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import (
    ChannelConfig,
    Order,
    Receipt,
    Voucher,
    channels_domain,
    court_domain,
    network_domain,
    signing_digest,
)
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick
from clusterai.work.inference import KIND, Generation

ME, GATEWAY, OTHER, VALIDATOR = (Address(name * 20) for name in (b"M", b"G", b"O", b"V"))
TOKEN = Address(b"T" * 20)
HOT, GATEWAY_HOT, OTHER_HOT, VALIDATOR_HOT, STRANGER = (
    Key(name * 32) for name in (b"m", b"g", b"o", b"v", b"x")
)
NETWORK = network_domain(31415, Address(b"R" * 20))
CHANNELS = channels_domain(31415, Address(b"C" * 20))
COURT = court_domain(31415, Address(b"J" * 20))
MODEL = Digest(b"L" * 32)
INPUT_WEI, OUTPUT_WEI = 2, 5
OFFER = ModelOffer(MODEL, "tiny", INPUT_WEI, OUTPUT_WEI, 2)
EPOCH_S, WINDOW_S = 15, 60
START_S = 15_000
CREDIT_WEI = 200
BALANCE_WEI = 100_000
TX = Digest(b"t" * 32)
SEAL_TO = b"k" * 32


class Crash(Exception):
    """The process died between two effects."""


class World:
    """Steps a lease book as a driver does, keeps its journal and its transcripts, and can kill it between effects.

    Attributes:
        out: effects that reached the world, in order.
        crash_after: how many effects may still happen before the process dies.
        rate_ppm: in force when an epoch is committed.
        parts: what the answer to a challenge is packed into.
    """

    def __init__(self, **terms: Any) -> None:
        self._terms = terms
        self.journal: list[bytes] = []
        self.kept: dict[Digest, int] = {}
        self.seen: list[Any] = []
        self.now_s = float(START_S)
        self.block = 0
        self.out: list[Any] = []
        self.crash_after: int | None = None
        self.rate_ppm = 1_000_000
        self.parts: tuple[bytes, ...] = (b"answer",)
        self.salt = 0
        self.start()

    def start(self) -> None:
        settings: dict[str, Any] = {
            "me": ME,
            "keys": (HOT.address,),
            "token": TOKEN,
            "network": NETWORK,
            "channels": CHANNELS,
            "epoch_s": EPOCH_S,
            "window_s": WINDOW_S,
            "sign": HOT.sign,
            "recover": recover,
            "credit_wei": CREDIT_WEI,
            "queue": 2,
            **self._terms,
        }
        self.book = LeaseBook(Terms(**settings), Directory(), {KIND.name: KIND})
        decoder = msgspec.msgpack.Decoder(self.book.RECORDS)
        self.book.restore([decoder.decode(record) for record in self.journal])
        self.step(Started())

    def restart(self) -> None:
        """As the daemon: restore, read the chain from its beginning, link, serve."""
        self.crash_after = None
        self.start()
        for event in self.seen:
            self.step(event)
        self.step(Serving((OFFER,)))
        self.step(Linked(GATEWAY))

    # --- driving ---

    def step(self, event: Any) -> list[Any]:
        """Effects happen one by one; transcripts are kept and answers packed as the adapters do."""
        effects = list(self.book.step(event, self.now_s))
        after: list[Any] = []
        done: list[Any] = []
        for effect in effects:
            if self.crash_after is not None:
                if self.crash_after == 0:
                    raise Crash
                self.crash_after -= 1
            if isinstance(effect, Save):
                self.journal.append(canonical.encode(effect.record))
                continue
            done.append(effect)
            self.out.append(effect)
            if isinstance(effect, Keep):
                self.kept[effect.order] = effect.epoch
                after.append(Kept(effect.order))
            if isinstance(effect, Prepare):
                after.append(Prepared(effect.epoch, effect.index, effect.validator, self.parts))
        for follow in after:
            done += self.step(follow)
        return done

    def tick(self, seconds: float = 0.5) -> list[Any]:
        self.now_s += seconds
        return self.step(Tick())

    def mine(self, *happened: Any, seconds: float = 1) -> list[Any]:
        """A block with these events."""
        self.now_s += seconds
        self.block += 1
        done: list[Any] = []
        for event in (*happened, events.Block(self.block, int(self.now_s))):
            self.seen.append(event)
            done += self.step(event)
        return done

    def submits(self, effects: list[Any]) -> list[str]:
        return [effect.key for effect in effects if isinstance(effect, Submit)]

    # --- the others ---

    def config(
        self, salt: bytes = b"s" * 32, payer: Address = GATEWAY, hot: Key = GATEWAY_HOT
    ) -> ChannelConfig:
        return ChannelConfig(payer, hot.address, ME, ME, TOKEN, 900, salt)

    @property
    def channel_id(self) -> Digest:
        return self.config().channel_id(CHANNELS)

    def register(self) -> None:
        """All participants, as the chain tells of them."""
        self.mine(
            events.Registered(ME, Role.PROVIDER, ZERO_DIGEST),
            events.Delegated(ME, HOT.address),
            events.Registered(GATEWAY, Role.GATEWAY, ZERO_DIGEST),
            events.Delegated(GATEWAY, GATEWAY_HOT.address),
            events.Registered(OTHER, Role.GATEWAY, ZERO_DIGEST),
            events.Delegated(OTHER, OTHER_HOT.address),
            events.Registered(VALIDATOR, Role.VALIDATOR, ZERO_DIGEST),
            events.Delegated(VALIDATOR, VALIDATOR_HOT.address),
            events.Deposited(self.channel_id, GATEWAY, ME, BALANCE_WEI, BALANCE_WEI),
        )

    def work(self, prompt: int = 3, max_tokens: int = 4, signer: Key = GATEWAY_HOT, **changes: Any) -> Work:
        """A fresh order for `prompt` tokens in and at most `max_tokens` out."""
        request: bytes = changes.pop(
            "request", Generation(MODEL, (1,) * prompt, max_tokens=max_tokens).canonical()
        )
        kind: str = changes.pop("kind", KIND.name)
        domain = changes.pop("domain", NETWORK)
        self.salt += 1
        order = Order(
            GATEWAY,
            ME,
            MODEL,
            canonical.content_digest(request),
            self.channel_id,
            INPUT_WEI,
            OUTPUT_WEI,
            prompt * INPUT_WEI + max_tokens * OUTPUT_WEI,
            int(self.now_s) + 600,
            self.salt.to_bytes(32),
        )
        order = msgspec.structs.replace(order, **changes)
        return Work(order, signer.sign(signing_digest(order, domain)), kind, request)

    def receive(self, frame: Any, sender: Address = GATEWAY) -> list[Any]:
        return self.step(Received(sender, frame))

    def answer(self, work: Work, *tokens: int, reason: str = "stop") -> list[Any]:
        return self.step(Produced(canonical.digest(work.order), Answer(tokens, reason)))

    def serve(self, *tokens: int, **changes: Any) -> Finished:
        """One order from beginning to receipt."""
        work = self.work(**changes)
        started = self.receive(work)
        assert [type(effect) for effect in started] == [Start], started
        done = self.answer(work, *(tokens or (7, 8)))
        return next(it.frame for it in done if isinstance(it, Send) and isinstance(it.frame, Finished))

    def pay(self, finished: Finished, amount_wei: int, signer: Key = GATEWAY_HOT, **changes: Any) -> Pay:
        voucher = Voucher(changes.pop("channel_id", self.channel_id), amount_wei)
        domain = changes.pop("domain", CHANNELS)
        return Pay(finished.receipt.order, voucher, signer.sign(signing_digest(voucher, domain)))

    def commit(self, submit: Submit) -> list[Any]:
        """The chain takes a commitment of ours; a later epoch's beacon follows."""
        call: Any = submit.call
        self.mine(
            events.EpochCommitted(
                ME,
                call.epoch,
                call.root,
                call.count,
                call.total,
                int(self.now_s) // EPOCH_S,
                self.rate_ppm,
            )
        )
        return self.mine(events.BeaconRecorded(int(self.now_s) // EPOCH_S, Digest(b"b" * 32)))

    def demanded(self, epoch: int, index: int, by: Address = VALIDATOR) -> events.Challenged:
        now_s = int(self.now_s)
        return events.Challenged(by, ME, epoch, index, now_s + 10, now_s + 20)

    def ask(self, epoch: int, *drawn: int, signer: Key = VALIDATOR_HOT, **changes: Any) -> Relay:
        ask = AskEpoch(VALIDATOR, ME, epoch, drawn, SEAL_TO, bytes(65))
        ask = msgspec.structs.replace(ask, **changes)
        signature = signer.sign(ask.signing_digest(NETWORK))
        return Relay(VALIDATOR, ME, canonical.encode(msgspec.structs.replace(ask, signature=signature)))

    # --- what must always hold ---

    def check(self) -> None:
        """No order has two receipts, nothing sent is forgotten, and each committed receipt's transcript was kept."""
        decoder = msgspec.msgpack.Decoder(self.book.RECORDS)
        made = [it.receipt for record in self.journal if isinstance(it := decoder.decode(record), Made)]
        orders = [receipt.order for receipt in made]
        assert len(orders) == len(set(orders)), "a second receipt of one order"
        sent: list[Receipt] = [
            it.frame.receipt for it in self.out if isinstance(it, Send) and isinstance(it.frame, Finished)
        ]
        assert all(receipt in made for receipt in sent), "a receipt was sent before it was durable"
        assert all(order in self.kept for order in orders), "a receipt without transcript"


def ready(**terms: Any) -> World:
    """A book that serves, linked with a gateway whose channel is open and funded."""
    world = World(**terms)
    world.register()
    world.step(Serving((OFFER,)))
    world.step(Linked(GATEWAY))
    world.receive(OpenChannel(world.config()))
    world.out.clear()
    return world


def refusal(effects: list[Any]) -> Refused:
    (effect,) = effects
    assert isinstance(effect, Send), effect
    assert isinstance(effect.frame, Refused), effect.frame
    return effect.frame


def find(effects: list[Any], kind: type, test: Callable[[Any], bool] = lambda _: True) -> Any:
    """The one effect (or frame sent) of a kind."""
    found = [it for it in effects if isinstance(it, kind) and test(it)]
    found += [
        it.frame for it in effects if isinstance(it, Send) and isinstance(it.frame, kind) and test(it.frame)
    ]
    assert len(found) == 1, (kind, effects)
    return found[0]
