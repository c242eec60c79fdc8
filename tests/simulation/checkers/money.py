"""Money is conserved: nobody's balance, no contract's holding and not the supply ever differs from what events say.

Counted by the token's `Transferred` events alone, then held against the ledger's own state and against what each
contract's other events say that it must hold.
"""

from typing import Any

from clusterai.ledger.core import events
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.rules import Rules
from clusterai.ledger.core.twin import TwinChain
from clusterai.protocol.ids import ZERO_ADDRESS, Address
from clusterai.runtime.simulator import Blockchain
from tests.simulation.checkers.blocks import OfBlocks, require


class MoneyConserved(OfBlocks):
    """Accounts + channels + held + stake + bonds == supply - burned, after every block."""

    def __init__(self, chain: Blockchain, twin: TwinChain, deployer: Address) -> None:
        self._twin = twin
        self._rules: Rules = twin.world.rules
        self._at: Addresses = twin.world.addresses
        self._deployer = deployer
        super().__init__(chain)

    def reset(self) -> None:
        self.balances: dict[Address, int] = {self._deployer: self._rules.supply_wei}
        self.burned = 0
        self.in_channels = 0
        self.at_stake = 0
        self.in_delegations = 0
        self.bonds: dict[tuple[Address, int, int], int] = {}
        self._bond_wei = self._rules.challenge_bond_wei
        self._touched: dict[Address, None] = {}

    def event(self, event: Any, timestamp_s: int) -> None:
        match event:
            case events.Transferred(source, to, value):
                require(value >= 0, "a transfer moves a positive amount", value)
                self._move(source, -value)
                self._move(to, value)
                if to == ZERO_ADDRESS:
                    self.burned += value
            case events.Deposited(_, _, _, amount):
                self.in_channels += amount
            case (
                events.Settled(_, _, _, amount)
                | events.WithdrawFinalized(_, amount)
                | events.Refunded(_, amount)
            ):
                self.in_channels -= amount
            case events.Bonded(_, amount):
                self.at_stake += amount
            case events.Withdrawn(_, amount):
                self.at_stake -= amount
            case events.Slashed(_, amount, bounty, burned):
                require(
                    amount == bounty + burned, "what is slashed is paid or burned", amount, bounty, burned
                )
                require(
                    bounty * 2 <= amount, "no more than half of a slashed stake is bounty", bounty, amount
                )
                self.at_stake -= amount
            case events.StakeDelegated(_, _, amount) | events.RewardShared(_, _, amount):
                self.in_delegations += amount
            case (
                events.StakeWithdrawn(_, _, amount)
                | events.RewardClaimed(_, _, amount)
                | events.DelegatedSlashed(_, amount)
            ):
                self.in_delegations -= amount
            case events.Challenged(_, provider, epoch, index):
                self.bonds[provider, epoch, index] = self._bond_wei
            case events.ParametersSet():
                self._bond_wei = event.challenge_bond_wei
            case events.ChallengeAnswered(provider, epoch, index):
                self.bonds.pop((provider, epoch, index), None)
            case _:
                pass

    def block(self, timestamp_s: int) -> None:
        if self._read != len(self.chain.blocks):
            return
        for owner in self._touched:
            counted, kept = self.balances[owner], self._twin.token.balance(owner)
            require(counted >= 0, "no balance is negative", owner, counted)
            require(counted == kept, "a balance is what its transfers sum to", owner, counted, kept)
        self._touched.clear()
        supply = self._twin.token.supply()
        require(
            supply + self.burned == self._rules.supply_wei, "supply and burned are all", supply, self.burned
        )
        holds = self.balances.get(self._at.channels, 0)
        require(holds == self.in_channels, "Channels holds what is in channels", holds, self.in_channels)
        holds = self.balances.get(self._at.registry, 0)
        require(holds == self.at_stake, "the Registry holds what is at stake", holds, self.at_stake)
        holds = self.balances.get(self._at.delegations, 0)
        require(
            holds == self.in_delegations,
            "Delegations holds stake and what it earned",
            holds,
            self.in_delegations,
        )
        holds = self.balances.get(self._at.court, 0)
        bonds = sum(self.bonds.values())
        require(holds <= bonds, "the Court holds no more than open bonds", holds, bonds)
        require(self.balances.get(self._at.credit, 0) == 0, "Credit holds nothing")

    def _move(self, owner: Address, value: int) -> None:
        self._touched[owner] = None
        if owner != ZERO_ADDRESS:
            self.balances[owner] = self.balances.get(owner, 0) + value
        else:
            self._touched.pop(owner)
