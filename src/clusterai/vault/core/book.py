"""A vault's book: decides who may do what, spends ε, and writes down each step before anybody hears of it.

    asked ──> denied                                        open spend ──> closed: a leaf of the log ──> anchored
      └─────> approved ──> granted ──> revoked, expired

A spend is refused as soon as one of three budgets doesn't hold it. It is written down before it is answered, and never given back: a
computation that dies has cost its ε, since nobody can know what it told. A spend that was open when the process died stays open, for whoever
paid to ask for the same again; after a day it is closed as a use from which nothing left.

Steps like all machines; one step at a time, so that two spends never see the same money left. What stands is kept by the `Register` (requests,
grants), the `Budgets` (what was spent) and the `UseLog` (what the chain is shown of it).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.vaults import Grant, Operation, Revoked
from clusterai.runtime.machine import Save, Started, Tick
from clusterai.vault.core.budgets import Budgets
from clusterai.vault.core.register import Register, check_uses
from clusterai.vault.core.terms import (
    Anchored,
    Approve,
    AskedFor,
    Budget,
    ChainTime,
    Close,
    Closed,
    Confirmed,
    Decided,
    Denied,
    Deny,
    Dropped,
    Due,
    Ended,
    Entry,
    Expired,
    Filed,
    Fixed,
    Gave,
    Issue,
    KeysAt,
    KeysWanted,
    Limits,
    Live,
    No,
    Permit,
    PolicySet,
    Record,
    Refused,
    Rekey,
    Rekeyed,
    Revoke,
    Spend,
    Spending,
    Spent,
    Terms,
    UseRow,
    Withdraw,
    Withdrawn,
)
from clusterai.vault.core.uselog import UseLog

OPEN_S = 24 * 3_600
"""A spend that is open for so long is closed: whoever made it won't come back."""


class VaultBook:
    """One vault. See the module's docstring."""

    RECORDS = Record

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.policy = terms.policy
        self.key_epoch = 0
        self._wanted_epoch = 0
        self._rekeying = False
        self._register = Register(terms)
        self._budgets = Budgets()
        self._log = UseLog(terms)

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        fixed = self._budgets.fixed_micro
        return [
            Limits(self.policy),
            *([] if fixed is None else [Budget(fixed)]),
            *self._register.records(),
            *self._budgets.records(),
            *(Closed(it.use, it.signature) for it in self._budgets.closed()),
            KeysWanted(self._wanted_epoch),
            KeysAt(self.key_epoch),
        ]

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        try:
            return self._step(event, now_s)
        except Denied as no:
            return [No(no.code, no.detail)]

    def _step(self, event: Any, now_s: float) -> Sequence[Any]:
        match event:
            case AskedFor():
                return self._asked(event, now_s)
            case Approve(request, note):
                return self._approve(request, note, now_s)
            case Deny(request, note):
                return self._deny(request, note, now_s)
            case Revoke(grant, reason):
                return self._revoke(grant, reason, now_s)
            case Withdrawn(grant, reason):
                return self._withdrawn(grant, reason, now_s)
            case Confirmed(grant):
                return self._confirmed(grant, now_s)
            case Refused(grant):
                return self._refused(grant, now_s)
            case Spend():
                return self._spend(event, now_s)
            case Close(order, result):
                return self._close(order, result, now_s)
            case Anchored(count, as_of_s):
                self._log.chain_has(count, as_of_s)
                return []
            case Rekeyed(epoch):
                return self._rekeyed(epoch)
            case Fixed(budget_micro):
                return [] if budget_micro == self._budgets.fixed_micro else [self._save(Budget(budget_micro))]
            case Due(grant):
                self._register.chain_can_take(grant)
                return self._register.asked_again(now_s)
            case PolicySet(policy):
                return [] if policy == self.policy else [self._save(Limits(policy)), Gave(policy.digest())]
            case Started():
                # What was open when the process died stays open: its ε is spent, so whoever paid for it may have it answered.
                self._register.chain_may_know(now_s)
                return [*self._expire(now_s), *self._rekey()]
            case ChainTime(at_s):
                return self._expire(at_s)
            case Tick():
                return self._tick(now_s)
            case _:
                return []

    # --- what others ask ---

    @property
    def entries(self) -> dict[Digest, Entry]:
        """By request."""
        return self._register.entries

    def entry_of(self, grant: Digest) -> Entry | None:
        return self._register.find(grant)

    def waiting(self) -> list[Entry]:
        return self._register.waiting()

    def why_waiting(self, entry: Entry) -> str:
        """Why the policy doesn't grant at once what it grants without its owner; empty where nothing is in the way, or only the owner may."""
        request = entry.signed.request
        if entry.state != "asked" or not self.policy.is_automatic(request):
            return ""
        promised = self._register.promised(request.requester)
        return self._budgets.lacking(self.policy, entry.requester, request.epsilon_micro, promised)

    def uses(self) -> list[UseRow]:
        """All spends, in the order in which they were made."""
        return list(self._budgets.spends.values())

    def leaves(self) -> tuple[Digest, ...]:
        """The log, as it is anchored."""
        return tuple(self._log.leaves)

    @property
    def anchored(self) -> int:
        return self._log.anchored

    def spent_by(self, requester: Address) -> int:
        return self._budgets.spent_by(requester)

    @property
    def total_spent_micro(self) -> int:
        return self._budgets.total_micro

    @property
    def delta_spent_pico(self) -> int:
        return self._budgets.delta_pico

    @property
    def budget_micro(self) -> int:
        """ε of everybody, for ever: the policy's, and never more than the chain's."""
        return self._budgets.of_all_micro(self.policy)

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest, now_s: float) -> Permit:
        """What the grant allows whoever signed.

        Raises:
            Denied: unknown, requester, pending, revoked, expired, operation, other_code, spent.
        """
        entry, decided, stated = self._register.allowed(grant, signer, operation, code, now_s)
        left_micro = stated.epsilon_micro - entry.spent_micro
        return Permit(
            grant,
            entry.requester,
            entry.signed.request.seal_to,
            stated.operation,
            Digest(stated.code),
            stated.epsilon_micro,
            min(left_micro, self._budgets.left_micro(self.policy, entry.requester)),
            stated.uses - entry.uses,
            stated.expires_s,
            entry.signed.request.price_wei,
            decided.milli_epsilon_wei,
            decided.use_wei,
            stated.key_epoch,
        )

    # --- state ---

    def _save(self, record: Record) -> Save:
        self._apply(record)
        return Save(record)

    def _apply(self, record: Record) -> None:
        match record:
            case Filed() | Decided() | Live() | Expired():
                self._register.apply(record)
            case Ended(_, reason):
                self._register.apply(record)
                if reason:
                    # Whatever this grant's holder was given keys to is under others from now on.
                    self._wanted_epoch = max(self.key_epoch, self._wanted_epoch) + 1
            case Dropped(request):
                self._register.drop(Digest(request))
            case Spending():
                self._budgets.count(record, self._register.count(record).requester)
            case Closed():
                self._budgets.close(record)
                self._log.add(record.use)
            case KeysAt(epoch):
                self.key_epoch = epoch
            case KeysWanted(epoch):
                self._wanted_epoch = epoch
            case Limits(policy):
                self.policy = policy
            case Budget(micro):
                self._budgets.fixed_micro = micro

    # --- requests ---

    def _asked(self, asked: AskedFor, now_s: float) -> Sequence[Any]:
        request = asked.signed.request
        token = request.struct()
        known = self.entries.get(token)
        if known is not None and known.state != "asked":
            return [Gave(known)]
        effects: list[Any] = []
        if known is None:
            self._register.check(asked, self.policy, now_s)
            self._budgets.check_left(self.policy, Address(request.requester), request.epsilon_micro)
            effects.append(self._save(Filed(asked.signed, asked.purpose, asked.code, int(now_s))))
        effects += self._automatic(self.entries[token], now_s)
        return [*effects, Gave(self.entries[token])]

    def _automatic(self, entry: Entry, now_s: float) -> list[Any]:
        """By the policy, without its owner, where budgets hold it."""
        request = entry.signed.request
        if (
            not self.policy.is_automatic(request)
            or self.policy.refusal(request, now_s) is not None
            or self.why_waiting(entry)
        ):
            return []
        return self._grant(entry.request, "by the policy", now_s, automatic=True)

    def _approve(self, request: Digest, note: str, now_s: float) -> Sequence[Any]:
        entry = self._register.request(request)
        if entry.state in ("approved", "granted"):
            return [Gave(entry)]
        if entry.state != "asked":
            raise Denied("closed", f"this request is {entry.state}")
        why = self.policy.refusal(entry.signed.request, now_s)
        if why is not None:
            raise Denied(why[0], f"{why[1]}: change the policy first, or deny the request")
        self._budgets.check_left(self.policy, entry.requester, entry.signed.request.epsilon_micro)
        effects = self._grant(request, note, now_s, automatic=False)
        return [*effects, Gave(self.entries[request])]

    def _grant(self, token: Digest, note: str, now_s: float, automatic: bool) -> list[Any]:
        request = self.entries[token].signed.request
        grant = Grant(
            self.terms.dataset,
            token,
            request.requester,
            request.operation,
            request.code,
            request.epsilon_micro,
            request.uses,
            request.expires_s,
            max(self.key_epoch, self._wanted_epoch),
        )
        policy = self.policy
        is_copy = request.operation == Operation.COPY
        milli_wei, use_wei = (0, policy.copy_wei) if is_copy else policy.pair_wei(request.operation)
        record = Decided(token, grant, note[:2_000], milli_wei, use_wei, automatic, int(now_s))
        self._register.chain_asked(grant.struct(), now_s)
        return [self._save(record), Issue(grant)]

    def _deny(self, request: Digest, note: str, now_s: float) -> Sequence[Any]:
        entry = self._register.request(request)
        if entry.state == "denied":
            return [Gave(entry)]
        if entry.state != "asked":
            raise Denied("closed", f"this request is {entry.state}: revoke its grant instead")
        saved = self._save(Decided(request, None, note[:2_000], 0, 0, automatic=False, at_s=int(now_s)))
        return [saved, Gave(self.entries[request])]

    # --- grants ---

    def _confirmed(self, grant: Digest, now_s: float) -> Sequence[Any]:
        entry = self.entry_of(grant)
        if entry is None or entry.state != "approved":
            return []
        return [self._save(Live(grant, int(now_s)))]

    def _refused(self, grant: Digest, now_s: float) -> Sequence[Any]:
        entry = self.entry_of(grant)
        if entry is None or entry.state != "approved":
            return []
        return [self._save(Ended(grant, 0, int(now_s)))]

    def _revoke(self, grant: Digest, reason: int, now_s: float) -> Sequence[Any]:
        """By the owner: the chain is told."""
        entry = self._register.of(grant)[0]
        if entry.state == "revoked":
            return [Gave(entry)]
        ended = self._end(grant, reason, now_s)
        self._register.chain_asked(grant, now_s)
        return [ended, Withdraw(grant, reason), *self._rekey(), Gave(self.entry_of(grant))]

    def _withdrawn(self, grant: Digest, reason: int, now_s: float) -> Sequence[Any]:
        """By whomever: the chain tells."""
        entry = self.entry_of(grant)
        if entry is None:
            return []
        self._register.chain_withdrew(grant)
        if entry.state == "revoked" or not reason:
            return [Gave(entry)]  # the chain forgets what is over by itself; that revokes nothing
        return [self._end(grant, reason, now_s), *self._rekey(), Gave(self.entry_of(grant))]

    def _end(self, grant: Digest, reason: int, now_s: float) -> Save:
        if reason not in set(Revoked):
            raise Denied("malformed", f"{reason} is no reason to revoke")
        return self._save(Ended(grant, reason, int(now_s)))

    def _expire(self, now_s: float) -> list[Any]:
        """Written down, since the time that ended them may be taken back."""
        return [self._save(Expired(grant, int(now_s))) for grant in self._register.over(now_s)]

    def _rekey(self) -> list[Any]:
        if self._rekeying or self._wanted_epoch <= self.key_epoch:
            return []
        self._rekeying = True
        return [Rekey(self._wanted_epoch)]

    def _rekeyed(self, epoch: int) -> Sequence[Any]:
        self._rekeying = False
        effects: list[Any] = [] if epoch <= self.key_epoch else [self._save(KeysAt(epoch))]
        return [*effects, *self._rekey()]

    # --- uses ---

    def _spend(self, spend: Spend, now_s: float) -> Sequence[Any]:
        known = self._budgets.spends.get(spend.order)
        if known is not None:
            if (known.grant, known.epsilon_micro, known.delta_pico) != (
                spend.grant,
                spend.epsilon_micro,
                spend.delta_pico,
            ):
                raise Denied("replayed", "this order has spent already, and something else")
            return [Gave(self._told(known))]
        entry, _, stated = self._register.of(spend.grant)
        if spend.epsilon_micro < 0 or spend.delta_pico < 0:
            raise Denied("malformed", "nobody spends less than nothing")
        self._register.check_alive(entry, stated, now_s)
        check_uses(entry, stated)
        self._budgets.check(self.policy, spend, entry, stated)
        saved = self._save(
            Spending(spend.grant, spend.order, spend.epsilon_micro, spend.delta_pico, int(now_s))
        )
        return [saved, Gave(self._told(self._budgets.spends[spend.order]))]

    def _told(self, row: UseRow) -> Spent:
        entry, _, stated = self._register.of(row.grant)
        return Spent(
            row.grant,
            row.order,
            row.epsilon_micro,
            row.delta_pico,
            stated.epsilon_micro - entry.spent_micro,
            self.budget_micro - self.total_spent_micro,
            row.signed is not None,
        )

    def _close(self, order: Digest, result: Digest, now_s: float) -> Sequence[Any]:
        row = self._budgets.spends.get(order)
        if row is None:
            raise Denied("unknown", "this order has spent nothing")
        if row.signed is not None:
            if row.result != result:
                raise Denied("closed", "this use was closed with another result")
            return [Gave(row.signed)]
        saved = self._save(self._log.closing(row, result, now_s))
        return [saved, Gave(self._budgets.spends[order].signed)]

    # --- time ---

    def _tick(self, now_s: float) -> Sequence[Any]:
        stale = self._budgets.open_since(now_s - OPEN_S)
        return [
            *(self._save(Dropped(request)) for request in self._register.overdue(now_s)),
            *self._expire(now_s),
            # What ended may have held what another waits for.
            *(effect for entry in self.waiting() for effect in self._automatic(entry, now_s)),
            *(self._save(self._log.closing(row, ZERO_DIGEST, now_s)) for row in stale),
            *self._register.asked_again(now_s),
            *self._rekey(),
            *self._log.anchoring(now_s),
        ]
