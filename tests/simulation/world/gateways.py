"""A gateway of the simulated network: the Meter, the relay beside it, and the front desk that talks to clients."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from clusterai.gateway.core.errands import (
    Abandon,
    Ask,
    Deliver,
    Done,
    Failed,
    Refunded,
    Restarted,
    Settled,
    Terms,
)
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.meter import Party as MeterParty
from clusterai.ledger.core.calls import Submit
from clusterai.market.core.directory import Directory
from clusterai.market.core.routing import Routing
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.messages import Relay, Unreachable
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import channels_domain, network_domain
from clusterai.runtime.machine import Linked, Received, Send, Unlinked
from clusterai.runtime.simulator import Process
from clusterai.work.inference import Generation
from tests.simulation.world.chain import ADDRESSES, CHAIN_ID
from tests.simulation.world.engine import END_BELOW
from tests.simulation.world.parties import Party, recover

if TYPE_CHECKING:
    from tests.simulation.world.clients import Client, Request
    from tests.simulation.world.providers import Provider
    from tests.simulation.world.validators import Validator
    from tests.simulation.world.world import World

NETWORK: Domain = network_domain(CHAIN_ID, ADDRESSES.registry)
VOUCHERS: Domain = channels_domain(CHAIN_ID, ADDRESSES.channels)

TERMS = Terms(channel_target_wei=2_000_000, channel_low_wei=500_000, bear_wei=8_000)
"""A channel for some hundred answers, so that it must be filled up in a run; some five answers may be borne."""


class Relaying:
    """The Meter and what the link server does for validators: carry `Relay`s between linked peers."""

    RECORDS = Meter.RECORDS

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._linked: dict[Address, None] = {}

    def restore(self, records: Iterable[Any]) -> None:
        self.meter.restore(records)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        return self.meter.snapshot()

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        match event:
            case Received(sender, Relay(_, to, body)):
                if to in self._linked:
                    return [Send(Address(to), Relay(sender, to, body))]
                return [Send(sender, Unreachable(to))]
            case Linked(peer):
                self._linked[peer] = None
            case Unlinked(peer):
                self._linked.pop(peer, None)
            case _:
                pass
        return self.meter.step(event, now_s)


def key_of(digest: Digest, signature: bytes) -> Address | None:
    try:
        return recover(digest, signature)
    except BadSignature:
        return None


class Ending:
    """Where the simulated engine's answers end."""

    def __init__(self, model: Digest, request: Generation) -> None:
        self._room = request.max_tokens - len(request.so_far)

    def push(self, token: int) -> str | None:
        self._room -= 1
        if token < END_BELOW:
            return "stop"
        return None if self._room else "length"


class Gateway:
    """Host of one gateway's process."""

    def __init__(self, world: "World", party: Party) -> None:
        self.world = world
        self.party = party
        self.errands: dict[int, tuple[Client, Request]] = {}
        self.process: Process = world.simulation.spawn(party.name, party.address, self.build, self)

    def build(self) -> Relaying:
        party = self.party
        me = MeterParty(
            owner=party.address,
            hot=party.hot.address,
            token=ADDRESSES.token,
            channels=ADDRESSES.channels,
            network=NETWORK,
            vouchers=VOUCHERS,
            epoch_s=self.world.rules.epoch_s,
            window_s=self.world.rules.window_s,
            sign=party.hot.sign,
            recover=key_of,
            confirmations=self.world.simulation.faults_drawn.reorganised_blocks,
        )
        return Relaying(Meter(me, Directory(), Routing(), TERMS, Ending))

    @property
    def meter(self) -> Meter | None:
        machine = self.process.machine
        return machine.meter if isinstance(machine, Relaying) else None

    @property
    def directory(self) -> Directory | None:
        return None if self.meter is None else self.meter.directory

    def host(self, caller: "Provider | Validator", role: Role) -> None:
        """Keep a link with `caller`, as long as each finds the other in the Registry, and not barred."""

        def admitted() -> bool:
            ours, theirs = self.directory, caller.directory
            return (
                ours is not None
                and theirs is not None
                and ours.acts_for(caller.party.hot.address, caller.party.address, role)
                and theirs.acts_for(self.party.hot.address, self.party.address, Role.GATEWAY)
            )

        self.world.simulation.network.dial(caller.process, self.process, admitted)

    # --- what clients do ---

    def ask(self, errand: int, client: "Client", request: "Request", ask: Ask, delay_us: int) -> None:
        """A client's connection is open from now until it is answered or the process dies."""
        self.errands[errand] = (client, request)
        self.process.post(delay_us, ask)

    def abandon(self, request: "Request", shown: tuple[int, ...] | None) -> None:
        """A request that isn't done is over: its client left, or it failed."""
        self.errands = {name: it for name, it in self.errands.items() if it[1] is not request}
        self.process.post(1, Abandon(request.call, shown))

    # --- host ---

    def started(self) -> None:
        self.world.chain.follow(self.process)

    def crashed(self) -> None:
        errands, self.errands = self.errands, {}
        for client, request in errands.values():
            client.lost(request)

    def perform(self, effect: Any) -> None:
        match effect:
            case Submit(key, call):
                self.world.chain.submit(self.process, self.party.hot.address, key, call)
            case Done(errand):
                if (found := self.errands.pop(errand, None)) is not None:
                    found[0].done(found[1], effect)
            case Failed(errand):
                if (found := self.errands.pop(errand, None)) is not None:
                    found[0].failed(found[1], effect)
            case Deliver() | Restarted() | Refunded() | Settled():
                pass  # what a client reads is looked at by the checkers
            case _:
                raise AssertionError(f"a gateway doesn't do {effect!r}")
