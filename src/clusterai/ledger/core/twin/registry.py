"""Registry.sol: participants, their keys and their stake."""

from typing import TYPE_CHECKING

import msgspec

from clusterai.ledger.core.events import (
    Bonded,
    CardUpdated,
    Delegated,
    Registered,
    Revoked,
    Slashed,
    Unbonding,
    Withdrawn,
)
from clusterai.ledger.core.twin.state import Transaction, World, checked, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import Delegation, signing_digest

if TYPE_CHECKING:
    from clusterai.ledger.core.twin.delegations import Delegations
    from clusterai.ledger.core.twin.panel import Panel

PROVIDER, GATEWAY, VALIDATOR = 1, 2, 4
MAX_BOUNTY_BPS = 5_000
DELEGATED_PER_OWN = 3


class Participant(msgspec.Struct, frozen=True):
    stake: int = 0
    roles: int = 0
    barred: bool = False
    ready_s: int = 0
    unbonding: int = 0
    card: Digest = ZERO_DIGEST


class Binding(msgspec.Struct, frozen=True):
    owner: Address = ZERO_ADDRESS
    active: bool = False


_STRANGER = Participant()
_UNBOUND = Binding()
_replace = msgspec.structs.replace


class Registry:
    """`panel` and `delegations` are set right behind the construction: each names the Registry, too."""

    panel: "Panel"
    delegations: "Delegations"

    def __init__(self, world: World, token: Token) -> None:
        self._world = world
        self._store = world.store
        self._token = token
        self._here = world.addresses.registry
        self._unbond_delay_s = world.rules.unbond_delay_s

    # --- public ---

    def register(self, tx: Transaction, roles: int, card: Digest) -> None:
        require(0 < roles <= PROVIDER | GATEWAY | VALIDATOR, "UnknownRoles")
        require(self.binding(tx.sender).owner == ZERO_ADDRESS, "AlreadyBound")
        self._store.put(("binding", tx.sender), Binding(tx.sender, True))
        self._store.put(("participant", tx.sender), Participant(roles=roles, card=card))
        tx.emit(Registered(tx.sender, roles, card))

    def update_card(self, tx: Transaction, card: Digest) -> None:
        owner = self.owner_of(tx.sender)
        require(owner != ZERO_ADDRESS, "NotRegistered")
        self._store.put(("participant", owner), _replace(self.participant(owner), card=card))
        tx.emit(CardUpdated(owner, card))

    def delegate(self, tx: Transaction, hot: Address, consent: bytes) -> None:
        require(self.participant(tx.sender).roles != 0, "NotRegistered")
        bound = self.binding(hot)
        free = bound.owner == ZERO_ADDRESS or (bound.owner == tx.sender and not bound.active)
        require(free, "AlreadyBound")
        require(self._signer(Delegation(tx.sender, hot), consent) == hot, "NoConsent")
        self._store.put(("binding", hot), Binding(tx.sender, True))
        tx.emit(Delegated(tx.sender, hot))

    def revoke(self, tx: Transaction, hot: Address) -> None:
        bound = self.binding(hot)
        require(bound.owner == tx.sender and bound.active and hot != tx.sender, "NotYourKey")
        self._store.put(("binding", hot), Binding(tx.sender, False))
        tx.emit(Revoked(tx.sender, hot))

    def bond(self, tx: Transaction, amount: int) -> None:
        participant = self._active(tx.sender)
        require(amount != 0, "ZeroAmount")
        require(amount < 2**128, "InsufficientStake")
        stake = checked(participant.stake + amount)
        self._set_stake(tx.sender, stake)
        tx.emit(Bonded(tx.sender, amount, stake))
        self._token.pull(tx, self._here, tx.sender, self._here, amount)
        self._weigh(tx, tx.sender)

    def unbond(self, tx: Transaction, amount: int) -> None:
        participant = self._active(tx.sender)
        require(amount != 0, "ZeroAmount")
        require(amount <= participant.stake, "InsufficientStake")
        ready_s = tx.now_s + self._unbond_delay_s
        self._set_stake(tx.sender, participant.stake - amount)
        changed = _replace(
            self.participant(tx.sender), unbonding=checked(participant.unbonding + amount), ready_s=ready_s
        )
        self._store.put(("participant", tx.sender), changed)
        tx.emit(Unbonding(tx.sender, amount, ready_s))
        self._weigh(tx, tx.sender)

    def withdraw(self, tx: Transaction) -> None:
        participant = self.participant(tx.sender)
        amount = participant.unbonding
        require(amount != 0, "ZeroAmount")
        require(tx.now_s >= participant.ready_s, "StillUnbonding")
        leases_open: int = self._store.get(("leases_committed", tx.sender), 0)
        require(leases_open == 0, "LeaseOpen")
        self._store.put(("participant", tx.sender), _replace(participant, unbonding=0))
        tx.emit(Withdrawn(tx.sender, amount))
        self._token.move(tx, self._here, tx.sender, amount)

    # --- for the Court ---

    def slash(self, tx: Transaction, owner: Address, finder: Address, bounty_bps: int) -> int:
        participant = self.participant(owner)
        amount = checked(participant.stake + participant.unbonding)
        self._set_stake(owner, 0)
        self._store.put(("delegated", owner), 0)
        self._store.put(("participant", owner), _replace(participant, stake=0, unbonding=0, barred=True))
        bounty = 0 if finder == ZERO_ADDRESS else amount * bounty_bps // 10_000
        payee = self.binding(finder).owner
        if payee == ZERO_ADDRESS:
            payee = finder
        tx.emit(Slashed(owner, amount, bounty, amount - bounty, payee))
        if amount != bounty:
            self._token.destroy(tx, self._here, amount - bounty)
        if participant.roles & VALIDATOR:
            self.delegations.slash_delegated(tx, owner)
        if bounty:
            self.delegations.pay_reward(tx, self._here, payee, bounty)
        self._weigh(tx, owner)
        return amount

    # --- for Delegations ---

    def set_delegated(self, tx: Transaction, owner: Address, amount: int) -> None:
        votes = self.validator_stake(owner)
        self._store.put(("delegated", owner), amount)
        self._recount(owner, votes)
        self.panel.weigh(tx, owner)

    # --- views ---

    def participant(self, owner: Address) -> Participant:
        return self._store.get(("participant", owner), _STRANGER)

    def binding(self, key: Address) -> Binding:
        """Whose key it is or was; the binding outlives revocation."""
        return self._store.get(("binding", key), _UNBOUND)

    def owner_of(self, key: Address) -> Address:
        bound = self.binding(key)
        return bound.owner if bound.active else ZERO_ADDRESS

    def standing(self, key: Address) -> tuple[Address, int]:
        owner = self.binding(key).owner
        return owner, self.participant(owner).roles

    def validator_stake(self, owner: Address) -> int:
        participant = self.participant(owner)
        if not participant.roles & VALIDATOR:
            return 0
        most = checked(participant.stake * DELEGATED_PER_OWN)
        return checked(participant.stake + min(self.delegated(owner), most))

    def delegated(self, owner: Address) -> int:
        """What others have behind an owner, whether it counts or not."""
        return self._store.get(("delegated", owner), 0)

    def total_validator_stake(self) -> int:
        return self._store.get(("validator_stake",), 0)

    def _set_stake(self, owner: Address, stake: int) -> None:
        votes = self.validator_stake(owner)
        self._store.put(("participant", owner), _replace(self.participant(owner), stake=stake))
        self._recount(owner, votes)

    def _recount(self, owner: Address, votes: int) -> None:
        """`owner` had so many votes; the sum of all follows."""
        total = self.total_validator_stake() - votes
        self._store.put(("validator_stake",), checked(total + self.validator_stake(owner)))

    def _weigh(self, tx: Transaction, owner: Address) -> None:
        participant = self.participant(owner)
        if participant.roles & VALIDATOR:
            self.delegations.note_own(tx, owner, participant.stake)
            self.panel.weigh(tx, owner)

    def _signer(self, delegation: Delegation, consent: bytes) -> Address | None:
        try:
            return self._world.recover(signing_digest(delegation, self._world.network_domain), consent)
        except BadSignature:
            return None

    def _active(self, owner: Address) -> Participant:
        participant = self.participant(owner)
        require(participant.roles != 0, "NotRegistered")
        require(not participant.barred, "OwnerBarred")
        return participant
