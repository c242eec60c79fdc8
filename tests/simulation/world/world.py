"""The simulated network: who takes part, how they are wired, and when everything has come to its end.

    clients ──asks──> gateways <──dial── providers, validators        all of them ──calls, events── the twin chain

A run: the participants meet and `Shape.busy_s` seconds of work go by under faults; then all faults end, and within
`Shape.settle_s` everything must be finished: each client answered, each charge paid out or refunded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import Rules
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.runtime.simulator import Blockchain, Fault, Faults, Simulation
from clusterai.runtime.simulator.timeline import SECOND_US
from tests.simulation.world.chain import ADDRESSES, DEPLOYER, RULES, WORDS, Chain
from tests.simulation.world.clients import Client
from tests.simulation.world.gateways import Gateway
from tests.simulation.world.parties import Party

STAKE_WEI = 1_000 * WEI_PER_TOKEN
PURSE_WEI = 10_000 * WEI_PER_TOKEN
CREDIT_WEI = WEI_PER_TOKEN
START_S = 1_000_000 // RULES.window_s * RULES.window_s
"""A window and an epoch begin with the run."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How large a world is and how long it lives.

    Attributes:
        requests: of each client, spread over `busy_s`.
        settle_s: from the end of the faults until everything must be over; more than two audit windows.
    """

    gateways: int = 1
    providers: int = 2
    validators: int = 3
    clients: int = 2
    requests: int = 8
    busy_s: int = 90
    settle_s: int = 1_200
    block_s: int = 2


class World:
    """One run.

    Attributes:
        villains: participants whose machines are wrapped; all others are honest.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        shape: Shape | None = None,
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
        self._errands = 0
        self.gateways = [Gateway(self, Party(f"gateway-{n}")) for n in range(self.shape.gateways)]
        self.clients = [
            Client(self, f"client-{n}", self.gateways[n % len(self.gateways)], self.shape.requests, self.shape.busy_s)
            for n in range(self.shape.clients)
        ]

    def next_errand(self) -> int:
        self._errands += 1
        return self._errands

    # --- life ---

    def begin(self) -> None:
        self.chain.begin(self._genesis())
        self.simulation.begin()

    def run(self) -> None:
        """The whole life of the world; raises `Broken` where a promise doesn't hold."""
        self.begin()
        self.simulation.run(self.shape.busy_s)
        self.simulation.heal()
        self.chain.heal()
        if not self.simulation.run(self.shape.settle_s, until=self.finished):
            raise self.simulation.broken(f"not finished {self.shape.settle_s} s after the faults: {self.unfinished()}")

    def finished(self) -> bool:
        return next(iter(self.unfinished()), None) is None

    def unfinished(self) -> list[str]:
        """What is still to be done, for people."""
        left = [
            f"{client.name}'s request {request.number} is {request.state} after {request.failures[-5:]}"
            for client in self.clients
            for request in client.requests
            if request.state not in ("done", "abandoned")
        ]
        return left

    def _genesis(self) -> list[tuple[Address, Any]]:
        """Tokens for all; everybody registers, delegates, and bonds; accounts are funded."""
        todo: list[tuple[Address, Any]] = []
        parties = [(gateway.party, Role.GATEWAY) for gateway in self.gateways]
        for party, role in parties:
            owner, hot = party.address, party.hot.address
            todo += [
                (DEPLOYER.address, calls.Transfer(owner, PURSE_WEI)),
                (DEPLOYER.address, calls.Transfer(hot, PURSE_WEI)),
                (owner, calls.Register(int(role), ZERO_DIGEST)),
                (owner, calls.Delegate(hot)),
                (owner, calls.Approve(ADDRESSES.registry, STAKE_WEI)),
                (owner, calls.Bond(STAKE_WEI)),
            ]
        todo.append((DEPLOYER.address, calls.Approve(ADDRESSES.credit, PURSE_WEI)))
        for client in self.clients:
            fund = calls.Fund(client.gateway.party.address, client.account, CREDIT_WEI)
            todo.append((DEPLOYER.address, fund))
        return todo
