"""A gateway's Meter between an account, two providers and a chain, all played by the test."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from clusterai.gateway.core.errands import Ask, Done, Failed, Terms
from clusterai.gateway.core.meter import Meter, Party
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Submit
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import Routing
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Announce, Answer, Finished, ModelOffer, Tokens, Work
from clusterai.protocol.signing import BadSignature, Key, recover
from clusterai.protocol.statements import Receipt, channels_domain, network_domain, signing_digest
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.work.inference import KIND, Generation

MODEL = Digest(b"m" * 32)
ACCOUNT = Digest(b"A" * 32)
GATEWAY = Address(b"\x02" * 20)
NETWORK = network_domain(31415, Address(b"r" * 20))
VOUCHERS = channels_domain(31415, Address(b"c" * 20))
HOT = Key(b"\x01" * 32)
PRICE = 3
EPOCH_S = 15
FUNDED = 10**9
START_S = 15_000.0


def recovered(digest: Digest, signature: bytes) -> Address | None:
    try:
        return recover(digest, signature)
    except BadSignature:
        return None


PARTY = Party(
    owner=GATEWAY,
    hot=HOT.address,
    token=Address(b"t" * 20),
    channels=Address(b"c" * 20),
    network=NETWORK,
    vouchers=VOUCHERS,
    epoch_s=EPOCH_S,
    window_s=4 * EPOCH_S,
    sign=HOT.sign,
    recover=recovered,
)


class Provider:
    """Plays one provider: owner's address, hot key, and what it says."""

    def __init__(self, number: int) -> None:
        self.owner = Address(bytes([0x10 + number]) * 20)
        self.key = Key(bytes([0x20 + number]) * 32)

    def tokens(self, work: Work, *tokens: int, start: int = 0) -> Received:
        return Received(self.owner, Tokens(canonical.digest(work.order), start, tokens, (), ()))

    def finished(self, work: Work, *tokens: int, reason: str = "stop", **lies: Any) -> Received:
        generation = KIND.decode(work.request)
        input_units, output_units = KIND.recount(generation, tokens)
        fields: dict[str, Any] = {
            "order": canonical.digest(work.order),
            "provider": self.owner,
            "gateway": GATEWAY,
            "model": MODEL,
            "answer": Answer(tokens, reason).digest(),
            "input_units": input_units,
            "output_units": output_units,
            "amount_wei": (input_units + output_units) * PRICE,
            "epoch": int(START_S) // EPOCH_S,
        }
        signer: Key = lies.pop("signer", self.key)
        receipt = Receipt(**{**fields, **lies})
        signature = signer.sign(signing_digest(receipt, NETWORK))
        return Received(self.owner, Finished(receipt, signature, reason, 0))


class World:
    """Steps a Meter, keeps its journal, and holds the books to account after every step."""

    def __init__(self) -> None:
        self.terms = Terms()
        self.journal: list[bytes] = []
        self.meter = self.fresh()
        self.now_s = START_S
        self.block = 0
        self.funded = 0
        self.last: list[Any] = []
        self.providers = [Provider(0), Provider(1)]
        self.errands = 0
        self.submits: list[Submit] = []

    def follow(self, model: Digest, request: Any) -> Any:
        """Nobody knows where answers end; a test may say so."""
        return None

    def fresh(self) -> Meter:
        meter = Meter(PARTY, Directory(), Routing(), self.terms, self.follow)
        decoder = msgspec.msgpack.Decoder(meter.RECORDS)
        meter.restore(decoder.decode(record) for record in self.journal)
        return meter

    def step(self, event: Any) -> list[Any]:
        self.last = self.meter.step(event, self.now_s)
        self.submits += [it for it in self.last if isinstance(it, Submit)]
        self.journal += [canonical.encode(effect.record) for effect in self.last if isinstance(effect, Save)]
        self.check()
        return self.last

    def check(self) -> None:
        """Money is conserved, and vouchers are exactly what was charged."""
        book = self.meter.book
        for account in book.accounts.values():
            spent_wei = account.held_wei + account.charged_wei + account.withdrawn_wei + account.tabbed_wei
            assert account.credit_wei + spent_wei == account.funded_wei
            assert account.credit_wei >= 0
            assert account.held_wei >= 0
        charged = sum(it.charged_wei + it.refunded_wei for it in book.accounts.values())
        waiting = sum(it.amount_wei for it in book.waiting.values())
        vouchered = sum(channel.vouchered_wei for channel in book.channels.values())
        assert charged + waiting + book.borne_wei == vouchered
        assert sum(it.funded_wei for it in book.accounts.values()) == self.funded
        held = waiting + sum(opened.order.cap_wei for opened in self.meter.orders.values())
        held += sum(it.reserved_wei for it in self.meter.errands.values())
        held += sum(sum(call.reserved_wei) for call in self.meter.bills.calls.values())
        assert sum(it.held_wei for it in book.accounts.values()) == held

    def chain(self, *happened: Any) -> list[Any]:
        """A block with these events."""
        self.block += 1
        effects: list[Any] = []
        self.funded += sum(it.amount for it in happened if isinstance(it, events.Funded))
        mark = self.funded
        self.funded -= sum(it.amount for it in happened if isinstance(it, events.Funded))
        for event in happened:
            effects += self.step(event)
        self.funded = mark
        return effects + self.step(events.Block(self.block, int(self.now_s)))

    def registered(self) -> list[Any]:
        found: list[Any] = [
            events.Registered(GATEWAY, 2, Digest(bytes(32))),
            events.Delegated(GATEWAY, HOT.address),
        ]
        for provider in self.providers:
            found += [
                events.Registered(provider.owner, 1, Digest(bytes(32))),
                events.Delegated(provider.owner, provider.key.address),
            ]
        return found

    def open(self, funded: int = FUNDED, links: Iterable[int] = (0, 1)) -> None:
        """Everybody registered, an account funded, providers linked and their channels deposited."""
        self.step(Started())
        self.chain(*self.registered(), events.Funded(GATEWAY, ACCOUNT, GATEWAY, funded))
        self.link(*links)
        self.deposit()

    def link(self, *numbers: int) -> None:
        for number in numbers:
            provider = self.providers[number]
            self.step(Linked(provider.owner))
            offer = ModelOffer(MODEL, "tiny", PRICE, PRICE, 4)
            self.step(Received(provider.owner, Announce((offer,), 0, 0, False)))

    def deposit(self) -> None:
        """Mine what the meter submits until it wants no more."""
        while self.submits:
            self.mine(self.submits.pop(0))

    def mine(self, submit: Submit) -> list[Any]:
        happened: list[Any] = []
        if isinstance(submit.call, calls.Deposit):
            config = submit.call.config
            channel_id = config.channel_id(VOUCHERS)
            channel = self.meter.book.channels[channel_id]
            balance = channel.balance_wei + submit.call.amount
            happened = [
                events.Deposited(
                    channel_id, Address(config.payer), Address(config.receiver), submit.call.amount, balance
                )
            ]
        return self.step(Mined(submit.key, Digest(bytes(32)), self.block + 1)) + self.chain(*happened)

    def ask(self, *prompt: int, most: int = 8, **more: Any) -> Any:
        """An errand; returns the order that went out, if one did."""
        self.errands += 1
        self.step(self.asked(self.errands, most, *prompt, **more))
        return self.work()

    def ask_all(self, parts: int, most: int = 8, **more: Any) -> tuple[int, list[Any]]:
        """A request of several parts; returns its name and the orders that went out."""
        call = 1000 + self.errands
        rest = (Generation(MODEL, (1, 2, 3), max_tokens=most),) * (parts - 1)
        work: list[Any] = []
        for part in range(parts):
            self.errands += 1
            ask = self.asked(self.errands, most, call=call, rest=() if part else rest, **more)
            self.step(ask)
            work.append(self.work())
        return call, work

    def asked(self, errand: int, most: int, *prompt: int, **more: Any) -> Ask:
        request = Generation(MODEL, prompt or (1, 2, 3), max_tokens=most)
        nonce = canonical.content_digest(errand.to_bytes(4, "big"))
        fields: dict[str, Any] = {"account": ACCOUNT, "kind": KIND, **more}
        return Ask(errand, model=MODEL, request=request, nonce=nonce, **fields)

    def work(self) -> Any:
        """(provider, Work) of the order that the last step sent."""
        sent = [it for it in self.last if isinstance(it, Send) and isinstance(it.frame, Work)]
        if not sent:
            return None
        return next(it for it in self.providers if it.owner == sent[0].to), sent[0].frame

    def answer(self, *tokens: int, **more: Any) -> Done:
        """A whole errand, honestly answered."""
        provider, work = self.ask(**more)
        self.step(provider.tokens(work, *tokens))
        self.step(provider.finished(work, *tokens))
        return self.of(Done)[0]

    def of(self, kind: type[Any]) -> list[Any]:
        return [it for it in self.last if isinstance(it, kind)]

    def sent(self, kind: type[Any]) -> list[Any]:
        return [it.frame for it in self.last if isinstance(it, Send) and isinstance(it.frame, kind)]

    def wait(self, seconds: float) -> list[Any]:
        effects: list[Any] = []
        for _ in range(int(seconds * 2)):
            self.now_s += 0.5
            effects += self.step(Tick())
        self.last = effects
        return effects

    def crash(self) -> None:
        """The process dies and starts again: the journal is all that is left."""
        self.meter = self.fresh()
        self.step(Started())
        self.block_again()

    def block_again(self) -> None:
        for event in self.registered():
            self.step(event)
        self.block += 1
        self.step(events.Block(self.block, int(self.now_s)))

    def unlink(self, number: int) -> list[Any]:
        return self.step(Unlinked(self.providers[number].owner))

    def account(self) -> Any:
        return self.meter.book.account(ACCOUNT)

    def failed(self) -> Failed:
        return self.of(Failed)[0]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def opened(world: World) -> World:
    world.open()
    return world


@pytest.fixture
def make_world() -> Callable[[], World]:
    return World
