"""A gateway's rent desk and some machines' books of their stays, in virtual time: frames are encoded and decoded, clocks agree."""

from typing import Any

from clusterai.gateway.core import rentstate
from clusterai.gateway.core.rentdesk import RentDesk
from clusterai.gateway.core.rentstate import (
    Abandon,
    AskCredit,
    Beaten,
    CloseRelay,
    Counted,
    Credit,
    Done,
    Extension,
    Failed,
    FindAnother,
    Found,
    Free,
    Noted,
    NotFound,
    OpenRelay,
    Order,
    RelayOpened,
    Rent,
    Rental,
    Rented,
    Seat,
)
from clusterai.node.core.staybook import (
    Came,
    Join,
    Joined,
    Lend,
    Lower,
    Path,
    Raise,
    Raised,
    Signed,
    StayBook,
    StayTerms,
    Still,
    Vacant,
    Withdraw,
    Worked,
)
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Answer, Frame
from clusterai.protocol.rentals import head_of, stay_model
from clusterai.protocol.signing import Key, recover, signed_by
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.work.cluster.core.heartbeats import Beat, Cell, tokens_of
from clusterai.work.cluster.price import recount, unit_price_wei
from clusterai.work.cluster.spec import ClusterSpec, Interval

NETWORK = Domain("ClusterAI", "1", 31415, Address(bytes(20)))
FRAME: Any = Frame
RECORD: Any = rentstate.RentRecord
GATEWAY, ACCOUNT = Address(b"\x01" * 20), Digest(b"\x0a" * 32)
LEASE, HOLD = Digest(b"\x07" * 32), Digest(b"\x08" * 32)
PRICE_WEI = 36_000_000
SPEC = ClusterSpec(cpu_milli=2000)
HOT = Key(b"\x5a" * 32)


def by_gateway(digest: Digest, signature: bytes, gateway: Address) -> bool:
    return gateway == GATEWAY and signed_by(HOT.address, digest, signature)


class Machine:
    """One node: its book, and hands that do at once what it asks for."""

    def __init__(self, stage: "Stage", number: int) -> None:
        self.stage = stage
        self.key = Key(bytes([number + 1]) * 32)
        self.operator = Address(bytes([100 + number]) * 20)
        self.seat = Seat(self.key.address, self.operator, PRICE_WEI, 0, HOLD)
        self.is_up = True
        self.raises = self.joins = True
        self.starts = 0
        self.raised_s = 0.0
        self.ahead_s = 0.0
        """its clock before the others'"""
        self.performed = 0
        self.dies_before: int | None = None
        """It is killed instead of performing its effect of this number; `comes_back`: and started again before it is missed."""
        self.comes_back = False
        self.lent: dict[Digest, Lend] = {}
        self.signed: dict[bytes, Signed] = {}
        """what was countersigned, on its disk"""
        self.done: list[Any] = []
        self.begin()

    def begin(self) -> None:
        terms = StayTerms(
            self.key.address, NETWORK, PRICE_WEI, lambda spec: None, 7 * 86_400, self.key.sign, by_gateway
        )
        self.book = StayBook(terms)
        self.lent = {}

    def tell(self, event: Any) -> None:
        for effect in self.book.step(event, self.stage.now_s + self.ahead_s):
            if self.performed == self.dies_before:
                self.killed()
                return
            self.performed += 1
            self.perform(effect)

    def killed(self) -> None:
        """Whoever is in the middle of talking with it hears of it afterwards."""
        self.dies_before, self.is_up = None, self.comes_back
        self.begin()
        self.starts += 1
        self.stage.later(lambda: self.stage.tell(Unlinked(self.operator)))
        if self.comes_back:
            self.stage.later(lambda: self.stage.tell(Linked(self.operator)))

    def perform(self, effect: Any) -> None:
        self.done.append(effect)
        match effect:
            case Send(to, frame):
                assert to == GATEWAY
                self.stage.later(lambda: self.stage.hear(self, frame))
            case Raise(lease, place, generation):
                self.raised_s = self.stage.now_s
                if self.raises:
                    key = bytes([place, generation, self.starts]) + self.key.address[:12] + bytes(17)
                    self.stage.later(lambda: self.tell(Raised(lease, generation, key)))
            case Join(generation, frame) if self.joins:
                lease = Digest(frame.lease)
                self.stage.later(lambda: self.tell(Joined(lease, generation, (("ray", 4_000),))))
            case Lend(model):
                self.lent[model] = effect
            case Withdraw(model):
                del self.lent[model]
            case Signed(said=said):
                self.signed[said.stay] = effect
            case Lower() | Vacant() | Path() | Still() | Join():
                pass
            case _:
                raise AssertionError(effect)

    def die(self) -> None:
        """The machine is gone with all that was on it."""
        self.is_up = False
        self.begin()
        self.stage.tell(Unlinked(self.operator))

    def comes(self) -> None:
        """Started again, long after."""
        self.is_up = True
        self.starts += 1
        self.stage.tell(Linked(self.operator))
        self.stage.settle()

    def blink(self) -> None:
        """Killed and started again, before anybody misses it: what was on it is gone."""
        self.stage.tell(Unlinked(self.operator))
        self.begin()
        self.starts += 1
        self.stage.now_s += 1
        self.stage.tell(Linked(self.operator))
        self.stage.settle()

    def count(self, kind: type) -> int:
        return sum(isinstance(it, kind) for it in self.done)


class Stage:
    def __init__(self, machines: int, spares: int = 0) -> None:
        self.now_s = 1_000_000.0
        self.ahead_s = 0.0
        """the gateway's clock before the others'"""
        self.machines = [Machine(self, number) for number in range(machines + spares)]
        self.spares = self.machines[machines:]
        self.owners = {it.key.address: it.operator for it in self.machines}
        self.credit_wei = 10**12
        self.charged: list[tuple[Digest, int]] = []
        self.seeds: list[bytes] = []
        self.came: list[Interval] = []
        self.notes: list[Noted] = []
        self.freed: list[Address] = []
        self.booked: set[Address] = set()
        """machines that nobody else can have; a rental's own lost ones come back by being booked anew"""
        self.extended: list[Extension] = []
        self.relays: dict[Digest, int] = {}
        self.journal: list[bytes] = []
        self.running: dict[int, tuple[Order, float]] = {}
        self.beaten: dict[int, list[int]] = {}
        self.fast = 1.0
        """how much faster than time a machine's clock runs"""
        self.performed = self.restarts = 0
        self.dies_before: int | None = None
        """The gateway is killed instead of performing its effect of this number."""
        """so many effects are carried out, and then no more: the gateway is about to be killed"""
        self._later: list[Any] = []
        self.begin()

    def begin(self) -> None:
        self.desk = RentDesk(NETWORK, recover, self.owners.get, HOT.sign, self.restarts.to_bytes(32, "big"))

    # --- the gateway ---

    def rented(self, nodes: int, hours: float = 1.0) -> Rented:
        seats = tuple(it.seat for it in self.machines[:nodes])
        self.booked |= {Address(it.node) for it in seats}
        until_s, at_s = int(self.now_s + hours * 3600), int(self.now_s)
        return Rented(LEASE, ACCOUNT, SPEC.canonical(), b"wish", seats, until_s, at_s, bytes(32))

    def newcomer(self) -> Machine:
        machine = Machine(self, len(self.machines))
        self.machines.append(machine)
        self.owners[machine.key.address] = machine.operator
        return machine

    def rent(self, nodes: int, hours: float = 1.0) -> Rental:
        rented = self.rented(nodes, hours)
        for machine in self.machines:
            self.tell(Linked(machine.operator))
        self.tell(Rent(rented))
        self.settle()
        return self.desk.rentals[LEASE]

    def tell(self, event: Any) -> bool:
        """Whether all that came of it was done: else the gateway was killed on the way, and is back."""
        for effect in self.desk.step(event, self.now_s + self.ahead_s):
            if self.performed == self.dies_before:
                self.dies_before = None
                self.restart()
                return False
            self.performed += 1
            self.perform(effect)
        return True

    def ask(self, event: Any) -> None:
        """As a renter does whose gateway is killed while it asks: again."""
        while not self.tell(event):
            pass
        self.settle()

    def perform(self, effect: Any) -> None:
        match effect:
            case Save(record):
                self.journal.append(canonical.encode(record))
            case Send(to, frame):
                data = canonical.encode(frame)
                self.later(lambda: self.deliver(to, data))
            case Order(errand, _, model, interval, _):
                self.order(effect, errand, model, interval)
            case Abandon(errand, keep):
                order, _ = self.running.pop(errand, (None, 0.0))
                if order is not None and keep is not None:
                    self.later(lambda: self.done(errand, order, tuple(self.beaten.get(errand, ())[:keep])))
            case OpenRelay(lease, members):
                self.relays[lease] = self.relays.get(lease, 0) + 1
                ports = {
                    a: {b: ("192.0.2.1", 1_000 + 64 * a + b) for b, _ in members if a != b}
                    for a, _ in members
                }
                self.later(lambda: self.tell(RelayOpened(lease, ports)))
            case CloseRelay(lease):
                self.relays.pop(lease, None)
            case FindAnother(lease, place, _, _, but):
                found = next(
                    (it for it in self.machines if self.is_free(it) and it.key.address not in but), None
                )
                if found is None:
                    self.later(lambda: self.tell(NotFound(lease, place, "none")))
                else:
                    self.booked.add(found.key.address)
                    self.later(lambda: self.tell(Found(lease, place, found.seat)))
            case Free(_, node):
                self.freed.append(node)
                self.booked.discard(node)
            case Extension():
                self.extended.append(effect)
            case AskCredit(lease):
                self.later(lambda: self.tell(Credit(lease, self.credit_wei)))
            case Noted():
                self.notes.append(effect)
            case _:
                raise AssertionError(effect)

    def is_free(self, machine: Machine) -> bool:
        return machine.is_up and machine.key.address not in self.booked

    def order(self, order: Order, errand: int, model: Digest, interval: Interval) -> None:
        """What the Meter does: to whoever lends that model, if the account can pay."""
        cap_wei = interval.seconds * 10 * unit_price_wei(PRICE_WEI)
        if self.credit_wei < cap_wei:
            self.later(lambda: self.tell(Failed(errand, "insufficient_credit", "deposit more")))
            return
        machine = next((it for it in self.machines if it.is_up and model in it.lent), None)
        if machine is None:
            self.later(lambda: self.tell(Failed(errand, "absent", "nobody")))
            return
        if not machine.book.follows(model, interval.before):
            self.later(lambda: self.tell(Failed(errand, "bad_request", "it hangs on nothing")))
            return
        machine.tell(Worked(model))
        self.seeds.append(interval.seed)
        self.running[errand] = (order, self.now_s)

    def deliver(self, to: Address, data: bytes) -> None:
        frame: Any = canonical.decode(data, FRAME)
        machine = next(it for it in self.machines if it.operator == to)
        if machine.is_up:
            machine.tell(Received(GATEWAY, frame))

    def hear(self, machine: Machine, frame: Any) -> None:
        if machine.is_up:
            self.tell(Received(machine.operator, canonical.decode(canonical.encode(frame), FRAME)))

    # --- time ---

    def later(self, act: Any) -> None:
        self._later.append(act)

    def settle(self) -> None:
        """All that is on its way arrives."""
        while self._later:
            act, *self._later = self._later
            act()

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self._intervals()
            self.tell(Tick())
            for machine in self.machines:
                if machine.is_up:
                    machine.tell(Tick())
            self.settle()

    def _intervals(self) -> None:
        for errand, (order, since_s) in list(self.running.items()):
            if self.running.get(errand) != (order, since_s):
                continue  # the gateway was killed meanwhile, and its errands with it
            interval = order.interval
            machine = next((it for it in self.machines if it.is_up and order.model in it.lent), None)
            if machine is None:
                del self.running[errand]
                self.tell(Failed(errand, "provider_lost", "gone"))
                continue
            elapsed_s = (self.now_s - since_s) * self.fast
            if elapsed_s < interval.seconds:
                if self.fast > 1:
                    cells = (Cell(0, bytes(32)),) * interval.cores
                    tokens = tokens_of(Beat(int(elapsed_s * 1000), 0, 0, cells))
                    self.tell(Beaten(errand, tokens, self.now_s - since_s))
                continue
            del self.running[errand]
            self.done(errand, order, honest(interval))
            self.settle()

    def done(self, errand: int, order: Order, tokens: tuple[int, ...]) -> None:
        """A receipt of these heartbeats, charged."""
        interval = order.interval
        machine = next((it for it in self.machines if it.is_up and order.model in it.lent), None)
        if machine is None:
            return
        amount_wei = recount(interval, tokens)[1] * unit_price_wei(PRICE_WEI)
        self.credit_wei -= amount_wei
        self.charged.append((order.model, amount_wei))
        head = head_of(canonical.digest(interval), Answer(tokens, "stop").digest())
        self.came.append(interval)
        machine.tell(Came(order.model, interval.before, head, recount(interval, tokens)[1]))
        self.tell(Done(errand, head, tokens, amount_wei))

    def beat(self) -> None:
        """An honest heartbeat of each interval that runs, as it stands now."""
        for errand, (order, since_s) in list(self.running.items()):
            cells = (Cell(1, bytes(32)),) * order.interval.cores
            passed_s = self.now_s - since_s
            tokens = tokens_of(Beat(max(1, int(passed_s * 1000)), 0, 0, cells))
            self.beaten.setdefault(errand, []).extend(tokens)
            self.tell(Beaten(errand, tokens, passed_s))
        self.settle()

    # --- crashes ---

    def restart(self, away_s: int = 0) -> None:
        """The gateway is killed and comes back with its journal; links come up again, some time later."""
        self.running, self._later, self.relays = {}, [], {}
        self.restarts += 1
        for machine in self.machines:
            machine.tell(Unlinked(GATEWAY))
        self.begin()
        self.desk.restore(canonical.decode(it, RECORD) for it in self.journal)
        # The market keeps only what running rentals need.
        self.booked &= {
            Address(stay.seat.node)
            for it in self.desk.rentals.values()
            if it.ended is None
            for stay in it.stays.values()
        }
        for lease, rental in list(self.desk.rentals.items()):
            self.tell(self.counted(lease, rental))
        self.tell(Started())
        self.run(away_s)
        for machine in self.machines:
            if machine.is_up:
                machine.tell(Linked(GATEWAY))
                self.tell(Linked(machine.operator))
        self.settle()

    def counted(self, lease: Digest, rental: Rental) -> Counted:
        """What the receipts come to."""
        units: dict[int, int] = {}
        for model, amount_wei in self.charged:
            place = next(
                place
                for place, stay in rental.stays.items()
                if model in [stay_model(lease, place, it) for it in range(stay.generation + 1)]
            )
            units[place] = units.get(place, 0) + amount_wei // unit_price_wei(PRICE_WEI)
        return Counted(lease, len(self.charged), sum(it for _, it in self.charged), units)

    def rental(self) -> Rental:
        return self.desk.rentals[LEASE]


def honest(interval: Interval) -> tuple[int, ...]:
    beats = [
        Beat(interval.seconds * 1000 * at // interval.beats, 0, 0, (Cell(1, bytes(32)),) * interval.cores)
        for at in range(1, interval.beats + 1)
    ]
    return tuple(token for beat in beats for token in tokens_of(beat))
