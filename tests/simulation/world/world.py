"""The simulated network: who takes part, how they are wired, and when everything has come to its end.

    clients ──ask──> gateways <──dial── providers, validators        all of them ──calls, events── the twin chain

A run: the participants meet and `Shape.busy_s` seconds of work go by under faults; then all faults end, and within
`Shape.settle_s` everything must be finished: each client answered, each charge paid out or refunded.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from clusterai.ledger.core import calls
from clusterai.ledger.core.rules import Rules
from clusterai.protocol.ids import ZERO_DIGEST, Address, Role
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.runtime.simulator import Blockchain, Faults, Simulation
from clusterai.runtime.simulator.timeline import SECOND_US
from tests.simulation.world.chain import ADDRESSES, DEPLOYER, RULES, WORDS, Chain
from tests.simulation.world.clients import Client
from tests.simulation.world.gateways import NETWORK, Gateway
from tests.simulation.world.parties import Party
from tests.simulation.world.providers import Provider
from tests.simulation.world.validators import Validator
from tests.simulation.world.wallets import Wallet

STAKE_WEI = 1_000 * WEI_PER_TOKEN
PURSE_WEI = 10_000 * WEI_PER_TOKEN
CREDIT_WEI = WEI_PER_TOKEN
START_S = 1_000_000 // RULES.window_s * RULES.window_s
"""A window and an epoch begin with the run."""

Participant = Gateway | Provider | Validator
Maker = Callable[["World", Party], Any]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How large a world is and how long it lives.

    Attributes:
        requests: of each client, spread over `busy_s`.
        settle_s: from the end of the faults until everything must be over; more than two audit windows.
        withdrawals: of each client's account.
    """

    gateways: int = 1
    providers: int = 2
    validators: int = 3
    clients: int = 3
    requests: int = 20
    busy_s: int = 240
    settle_s: int = 1_800
    block_s: int = 2
    withdrawals: int = 0


class World:
    """One run.

    Args:
        makers: participant's name to what is made in its place: the villains.

    Attributes:
        villains: addresses of those, to their kind's name; all others are honest.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        shape: Shape | None = None,
        makers: Mapping[str, Maker] | None = None,
        rules: Rules = RULES,
        command: str = "(no command given)",
    ) -> None:
        self.seed = seed
        self.shape = shape or Shape()
        self.rules = rules
        self.simulation = Simulation(seed, faults, START_S, command=command)
        self.ledger = Chain(seed, rules)
        self.chain = Blockchain(
            seed,
            faults,
            self.simulation.timeline,
            self.ledger,
            WORDS,
            START_S,
            block_us=self.shape.block_s * SECOND_US,
            final=faults.reorganised_blocks,
        )
        self.villains: dict[Address, str] = {}
        self._makers = makers or {}
        self._errands = 0
        self.gateways: list[Gateway] = self._make("gateway", self.shape.gateways, Gateway)
        self.providers: list[Provider] = self._make("provider", self.shape.providers, Provider)
        self.validators: list[Validator] = self._make("validator", self.shape.validators, Validator)
        self.clients = [
            Client(self, f"client-{n}", self.gateways[n % len(self.gateways)])
            for n in range(self.shape.clients)
        ]
        self.wallets = [
            Wallet(self, client, n) for client in self.clients for n in range(self.shape.withdrawals)
        ]

    def _make(self, role: str, count: int, honest: Maker) -> list[Any]:
        made: list[Any] = []
        for number in range(count):
            party = Party(f"{role}-{number}")
            maker = self._makers.get(party.name)
            if maker is not None:
                self.villains[party.address] = getattr(maker, "__name__", "villain")
            made.append((maker or honest)(self, party))
        return made

    def next_errand(self) -> int:
        self._errands += 1
        return self._errands

    # --- life ---

    def begin(self) -> None:
        self.chain.begin(self._genesis())
        self.simulation.begin()

    def heal(self) -> None:
        self.simulation.heal()
        self.chain.heal()

    def settle(self) -> None:
        """Let everything come to its end; raises `Broken` if something doesn't."""
        if not self.simulation.run(self.shape.settle_s, until=self.finished):
            left = "; ".join(self.unfinished()[:5])
            raise self.simulation.broken(f"unfinished {self.shape.settle_s} s after the faults: {left}")

    def finished(self) -> bool:
        return not self.unfinished()

    def unfinished(self) -> list[str]:
        """What is still to be done. Where nobody is left to serve, clients wait in vain, and rightly so."""
        barred = self.ledger.twin.channels.barred
        served = not all(barred(provider.party.address) for provider in self.providers)
        left = [
            f"{client.name}'s request {request.number} is {request.state} after {request.failures[-5:]}"
            for client in self.clients
            if served and client.gateway.party.address not in self.villains
            for request in client.requests
            if request.state not in ("done", "abandoned")
        ]
        left += [f"withdrawal {it.home.hex()} isn't paid" for it in self.wallets if not it.paid_wei]
        return left or self.unpaid()

    def unpaid(self) -> list[str]:
        """Vouchers that honest providers could still turn into money; with the barred, it goes back."""
        left: list[str] = []
        twin = self.ledger.twin
        for gateway in self.gateways:
            meter = gateway.meter
            if gateway.party.address in self.villains:
                continue
            if meter is None:
                left.append(f"{gateway.party} is down")
                continue
            for channel_id, channel in meter.book.channels.items():
                if twin.channels.barred(channel.provider):
                    if not channel.closed:
                        left.append(f"{gateway.party}'s channel with a barred provider isn't closed")
                    on_chain = twin.channels.channel(channel_id)
                    if on_chain.balance != on_chain.total_claimed or channel.balance_wei != on_chain.balance:
                        left.append(f"{gateway.party}'s deposit with a barred provider isn't back")
                    continue
                claimed = twin.channels.channel(channel_id).total_claimed
                if claimed != channel.vouchered_wei:
                    left.append(f"{gateway.party} vouchered {channel.vouchered_wei}, claimed is {claimed}")
        for provider in self.providers:
            sums = twin.channels.receiver(provider.party.address, ADDRESSES.token)
            if sums.total_claimed != sums.total_settled and not twin.channels.barred(provider.party.address):
                left.append(f"{provider.party} claimed {sums.total_claimed}, settled {sums.total_settled}")
        return left

    def _genesis(self) -> list[tuple[Address, Any]]:
        """Tokens for all; everybody registers, delegates, and bonds; accounts are funded."""
        todo: list[tuple[Address, Any]] = []
        roles: list[tuple[list[Any], Role]] = [
            (self.gateways, Role.GATEWAY),
            (self.providers, Role.PROVIDER),
            (self.validators, Role.VALIDATOR),
        ]
        for hosts, role in roles:
            for host in hosts:
                owner, hot = host.party.address, host.party.hot.address
                todo += [
                    (DEPLOYER.address, calls.Transfer(owner, PURSE_WEI)),
                    (DEPLOYER.address, calls.Transfer(hot, PURSE_WEI)),
                    (owner, calls.Register(int(role), ZERO_DIGEST)),
                    (owner, calls.delegate(owner, hot, host.party.hot.sign, NETWORK)),
                    (owner, calls.Approve(ADDRESSES.registry, STAKE_WEI)),
                    (owner, calls.Bond(STAKE_WEI)),
                ]
        todo.append((DEPLOYER.address, calls.Approve(ADDRESSES.credit, PURSE_WEI)))
        for client in self.clients:
            fund = calls.Fund(client.gateway.party.address, client.account, CREDIT_WEI)
            todo.append((DEPLOYER.address, fund))
        return todo
