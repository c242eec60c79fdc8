"""A vault's book: who asked, what was granted, what each use spent, and what may still be spent.

    asked ──> denied                                        open spend ──> closed: a leaf of the log ──> anchored
      └─────> approved ──> granted ──> revoked, expired

Three budgets hold at once, of a grant, of a requester and of everybody, and a spend is refused as soon as one of them doesn't hold it. It is
written down before it is answered, and never given back: a computation that dies has cost its ε, since nobody can know what it told. A spend
that was open when the process died stays open, for whoever paid to ask for the same again; after a day it is closed as a use from which nothing left.

Steps like all machines; one step at a time, so that two spends never see the same money left.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.access import MOST_CODE_BYTES, MOST_PURPOSE_BYTES
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.vaults import Grant, Operation, Revoked, SignedUse, Use, log_root
from clusterai.runtime.machine import Save, Started, Tick
from clusterai.vault.core.policy import epsilon
from clusterai.vault.core.terms import (
    Anchor,
    Anchored,
    Approve,
    AskedFor,
    Budget,
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

MOST_WAITING = 64
"""Requests that nobody has decided; each may bring half a megabyte of code to read."""
MOST_WAITING_OF_ONE = 4
UNDECIDED_S = 14 * 86_400
OPEN_S = 24 * 3_600
"""A spend that is open for so long is closed: whoever made it won't come back."""
ANCHOR_EVERY_S = 60.0
ANCHOR_AT = 64
"""Uses that aren't anchored yet, so many and it isn't waited for."""
RETRY_S = 30.0


class VaultBook:
    """One vault. See the module's docstring."""

    RECORDS = Record

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.policy = terms.policy
        self.entries: dict[Digest, Entry] = {}
        """by request"""
        self.key_epoch = 0
        self._wanted_epoch = 0
        self._grants: dict[Digest, Digest] = {}
        """grant to request"""
        self._spends: dict[Digest, UseRow] = {}
        """by order"""
        self._open: dict[Digest, None] = {}
        """orders"""
        self._log: list[Digest] = []
        """the leaves"""
        self._closed_micro: dict[Digest, int] = {}
        """by grant, as the log has it"""
        self._logged_micro = 0
        self._spent_of: dict[Address, int] = {}
        self._delta_pico = 0
        self._fixed_micro: int | None = None
        """what the chain holds us to: more spent is a breach that costs the stake"""
        self.total_spent_micro = 0
        self.anchored = 0
        self._anchor_at_s = 0.0
        self._asked_at_s: dict[Digest, float] = {}
        """when the chain was asked for a grant, or its end"""
        self._withdrawn: dict[Digest, None] = {}
        """grants that the chain says are revoked; it tells of them again at each start"""
        self._rekeying = False
        self._latest_s = 0
        """no use may be older than what was anchored before it, whatever the clock does"""

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        """Everything that anybody may still ask about; denied requests go, and the code of those that ended."""
        records: list[msgspec.Struct] = [Limits(self.policy)]
        if self._fixed_micro is not None:
            records.append(Budget(self._fixed_micro))
        for entry in self.entries.values():
            if entry.state == "denied":
                continue
            keeps_code = entry.state in ("asked", "approved", "granted")
            records.append(
                Filed(entry.signed, entry.purpose, entry.code if keeps_code else b"", entry.asked_s)
            )
            if entry.decided is None:
                continue
            records.append(entry.decided)
            assert entry.grant is not None, "what isn't denied was granted"
            if entry.state != "approved":
                records.append(Live(entry.grant, entry.decided.at_s))
            if entry.state == "revoked":
                records.append(Ended(entry.grant, entry.ended_reason, entry.decided.at_s))
        records.extend(
            Spending(row.grant, row.order, row.epsilon_micro, row.delta_pico, row.at_s)
            for row in self._spends.values()
        )
        closed = [row.signed for row in self._spends.values() if row.signed is not None]
        records.extend(
            Closed(it.use, it.signature) for it in sorted(closed, key=lambda signed: signed.use.index)
        )
        return [*records, KeysWanted(self._wanted_epoch), KeysAt(self.key_epoch)]

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        match event:
            case AskedFor():
                return self._asked(event, now_s)
            case Approve(request, note):
                return self._approve(request, note, now_s)
            case Deny(request, note):
                return self._deny(request, note, now_s)
            case Revoke(grant, reason):
                return self._revoke(grant, reason, now_s, tell=True)
            case Withdrawn(grant, reason):
                return self._revoke(grant, reason, now_s, tell=False)
            case Confirmed(grant):
                return self._confirmed(grant, now_s)
            case Refused(grant):
                return self._refused(grant, now_s)
            case Spend():
                return self._spend(event, now_s)
            case Close(order, result):
                return self._close(order, result, now_s)
            case Anchored(count, as_of_s):
                self.anchored = max(self.anchored, min(count, len(self._log)))
                self._latest_s = max(self._latest_s, as_of_s)
                return []
            case Rekeyed(epoch):
                return self._rekeyed(epoch)
            case Fixed(budget_micro):
                return [] if budget_micro == self._fixed_micro else [self._save(Budget(budget_micro))]
            case Due(grant):
                self._asked_at_s.pop(grant, None)
                return self._asked_again(now_s)
            case PolicySet(policy):
                return [] if policy == self.policy else [self._save(Limits(policy)), Gave(policy.digest())]
            case Started():
                return self._started(now_s)
            case Tick():
                return self._tick(now_s)
            case _:
                return []

    # --- what others ask ---

    def entry_of(self, grant: Digest) -> Entry | None:
        request = self._grants.get(grant)
        return None if request is None else self.entries[request]

    def uses(self) -> list[UseRow]:
        """All spends, in the order in which they were made."""
        return list(self._spends.values())

    def leaves(self) -> tuple[Digest, ...]:
        """The log, as it is anchored."""
        return tuple(self._log)

    def spent_by(self, requester: Address) -> int:
        return self._spent_of.get(requester, 0)

    @property
    def budget_micro(self) -> int:
        """ε of everybody, for ever: the policy's, and never more than the chain's."""
        fixed = self._fixed_micro
        return (
            self.policy.total_epsilon_micro if fixed is None else min(fixed, self.policy.total_epsilon_micro)
        )

    @property
    def delta_spent_pico(self) -> int:
        return self._delta_pico

    def waiting(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state == "asked"]

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest, now_s: float) -> Permit:
        """What the grant allows whoever signed.

        Raises:
            Denied: unknown, requester, pending, revoked, expired, operation, other_code, spent.
        """
        entry = self.entry_of(grant)
        if entry is None:
            raise Denied(
                "unknown", f"no grant 0x{grant.hex()} of this vault: ask for one with clusterai data request"
            )
        decided = entry.decided
        assert decided is not None
        assert decided.grant is not None, "a grant was decided"
        stated = decided.grant
        if signer != entry.requester:
            # Before all else: what became of a grant is nobody's business but its holder's.
            raise Denied("requester", "this grant is somebody else's: sign with the key that asked for it")
        self._check_alive(entry, stated, now_s)
        if operation != stated.operation:
            allowed = Operation(stated.operation).name.lower()
            raise Denied("operation", f"this grant is for {allowed}: ask for another")
        if code != stated.code:
            raise Denied(
                "other_code",
                f"the grant is for the program 0x{stated.code.hex()}, and this is 0x{code.hex()}: send the one that was granted, "
                "or ask for a grant for this one",
            )
        left_micro, uses_left = stated.epsilon_micro - entry.spent_micro, stated.uses - entry.uses
        if uses_left <= 0:
            raise Denied("spent", f"all {stated.uses} uses of this grant are used: ask for another")
        return Permit(
            grant,
            entry.requester,
            entry.signed.request.seal_to,
            stated.operation,
            Digest(stated.code),
            stated.epsilon_micro,
            min(left_micro, self._left_micro(entry.requester)),
            uses_left,
            stated.expires_s,
            entry.signed.request.price_wei,
            decided.milli_epsilon_wei,
            decided.use_wei,
            stated.key_epoch,
        )

    @staticmethod
    def _check_alive(entry: Entry, stated: Grant, now_s: float) -> None:
        if entry.state == "approved":
            raise Denied("pending", "the grant isn't on chain yet: try again in some seconds")
        if entry.state == "revoked":
            reason = (
                Revoked(entry.ended_reason).name.lower() if entry.ended_reason else "the chain refused it"
            )
            raise Denied("revoked", f"this grant was revoked: {reason}")
        if entry.state != "granted" or now_s >= stated.expires_s:
            raise Denied("expired", f"this grant ended at {stated.expires_s}: ask for another")

    def _left_micro(self, requester: Address) -> int:
        """Of what all may spend, and this one."""
        return min(
            self.budget_micro - self.total_spent_micro,
            self.policy.requester_epsilon_micro - self.spent_by(requester),
        )

    # --- state ---

    def _save(self, record: Record) -> Save:
        self._apply(record)
        return Save(record)

    def _apply(self, record: Record) -> None:
        match record:
            case Filed(signed, purpose, code, at_s):
                request = signed.request.struct()
                self.entries[request] = Entry(request, signed, purpose, code, at_s)
            case Decided(request, grant):
                self._decided(Digest(request), grant, record)
            case Live(grant):
                self._change(Digest(grant), state="granted")
            case Ended(grant, reason):
                self._change(Digest(grant), state="revoked", ended_reason=reason)
                if reason:
                    # Whatever this grant's holder was given keys to is under others from now on.
                    self._wanted_epoch = max(self.key_epoch, self._wanted_epoch) + 1
            case Dropped(request):
                self.entries.pop(Digest(request), None)
            case Spending():
                self._count(record)
            case Closed(use, signature):
                self._logged(use, signature)
            case KeysAt(epoch):
                self.key_epoch = epoch
            case KeysWanted(epoch):
                self._wanted_epoch = epoch
            case Limits(policy):
                self.policy = policy
            case Budget(micro):
                self._fixed_micro = micro

    def _decided(self, request: Digest, grant: Grant | None, record: Decided) -> None:
        entry = self.entries[request]
        if grant is None:
            self.entries[request] = msgspec.structs.replace(entry, state="denied", decided=record, code=b"")
            return
        token = grant.struct()
        self._grants[token] = request
        self.entries[request] = msgspec.structs.replace(entry, state="approved", decided=record, grant=token)

    def _change(self, grant: Digest, **changes: Any) -> None:
        request = self._grants[grant]
        self.entries[request] = msgspec.structs.replace(self.entries[request], **changes)

    def _count(self, record: Spending) -> None:
        grant, order = Digest(record.grant), Digest(record.order)
        entry = self.entries[self._grants[grant]]
        self._change(grant, spent_micro=entry.spent_micro + record.epsilon_micro, uses=entry.uses + 1)
        self._spent_of[entry.requester] = self.spent_by(entry.requester) + record.epsilon_micro
        self.total_spent_micro += record.epsilon_micro
        self._delta_pico += record.delta_pico
        self._spends[order] = UseRow(
            order,
            grant,
            entry.requester,
            record.epsilon_micro,
            record.delta_pico,
            record.at_s,
            -1,
            None,
            None,
        )
        self._open[order] = None

    def _logged(self, use: Use, signature: bytes) -> None:
        order, grant = Digest(use.order), Digest(use.grant)
        assert use.index == len(self._log), "the log has no gap"
        self._spends[order] = msgspec.structs.replace(
            self._spends[order],
            index=use.index,
            result=Digest(use.result),
            signed=SignedUse(use, signature),
        )
        self._open.pop(order, None)
        self._log.append(use.struct())
        self._closed_micro[grant] = use.grant_spent_micro
        self._logged_micro = use.total_spent_micro
        self._latest_s = max(self._latest_s, use.at_s)

    # --- requests ---

    def _asked(self, asked: AskedFor, now_s: float) -> Sequence[Any]:
        request = asked.signed.request
        token = request.struct()
        known = self.entries.get(token)
        if known is not None and known.state != "asked":
            return [Gave(known)]
        effects: list[Any] = []
        if known is None:
            refusal = self._refusal(asked, now_s)
            if refusal is not None:
                return [No(*refusal)]
            effects.append(self._save(Filed(asked.signed, asked.purpose, asked.code, int(now_s))))
        if self.policy.is_automatic(request) and self._holds(request.requester, request.epsilon_micro):
            effects += self._grant(token, "by the policy", now_s, automatic=True)
        return [*effects, Gave(self.entries[token])]

    def _refusal(self, asked: AskedFor, now_s: float) -> tuple[str, str] | None:
        request = asked.signed.request
        if request.dataset != self.terms.dataset:
            return "dataset", "the request is for another data set"
        if request.requester in (ZERO_ADDRESS, self.terms.owner):
            return "requester", "the owner needs no grant, and nobody has no key"
        if not asked.signed.holds(self.terms.network):
            return "signature", "the request isn't signed by its requester, or for another network"
        if not asked.purpose.strip() or len(asked.purpose.encode()) > MOST_PURPOSE_BYTES:
            return "purpose", f"say what for, in at most {MOST_PURPOSE_BYTES} bytes"
        if canonical.content_digest(asked.purpose.encode()) != request.purpose:
            return "purpose", "the purpose isn't the text that was signed"
        if len(asked.code) > MOST_CODE_BYTES:
            return "code", f"a program of {len(asked.code)} bytes; {MOST_CODE_BYTES} are the most"
        if any(request.code) and canonical.content_digest(asked.code) != request.code:
            return "other_code", "the program isn't the one that was signed"
        if not any(request.code) and asked.code:
            return "code", "a program came with a request for none"
        why = self.policy.refusal(request, now_s)
        if why is not None:
            return why
        waiting = self.waiting()
        if sum(1 for it in waiting if it.requester == request.requester) >= MOST_WAITING_OF_ONE:
            return "busy", f"{MOST_WAITING_OF_ONE} of your requests wait already: wait for the owner"
        if len(waiting) >= MOST_WAITING:
            return "busy", f"{MOST_WAITING} requests wait already: try again in a day"
        return None

    def _holds(self, requester: bytes, epsilon_micro: int) -> bool:
        """Whether the budgets hold it, besides what all living grants could still spend."""
        promised, mine = 0, 0
        for entry in self.entries.values():
            if entry.state in ("approved", "granted"):
                left = entry.signed.request.epsilon_micro - entry.spent_micro
                promised += left
                mine += left if entry.requester == requester else 0
        return (
            self.total_spent_micro + promised + epsilon_micro <= self.budget_micro
            and self.spent_by(Address(requester)) + mine + epsilon_micro
            <= self.policy.requester_epsilon_micro
        )

    def _approve(self, request: Digest, note: str, now_s: float) -> Sequence[Any]:
        entry = self.entries.get(request)
        if entry is None:
            return [No("unknown", f"no request 0x{request.hex()}")]
        if entry.state in ("approved", "granted"):
            return [Gave(entry)]
        if entry.state != "asked":
            return [No("closed", f"this request is {entry.state}")]
        why = self.policy.refusal(entry.signed.request, now_s)
        if why is not None:
            return [No(why[0], f"{why[1]}: change the policy first, or deny the request")]
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
        use_wei = policy.copy_wei if request.operation == Operation.COPY else policy.use_wei
        milli_wei = 0 if request.operation == Operation.COPY else policy.milli_epsilon_wei
        record = Decided(token, grant, note[:2_000], milli_wei, use_wei, automatic, int(now_s))
        self._asked_at_s[grant.struct()] = now_s
        return [self._save(record), Issue(grant)]

    def _deny(self, request: Digest, note: str, now_s: float) -> Sequence[Any]:
        entry = self.entries.get(request)
        if entry is None:
            return [No("unknown", f"no request 0x{request.hex()}")]
        if entry.state == "denied":
            return [Gave(entry)]
        if entry.state != "asked":
            return [No("closed", f"this request is {entry.state}: revoke its grant instead")]
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

    def _revoke(self, grant: Digest, reason: int, now_s: float, tell: bool) -> Sequence[Any]:
        entry = self.entry_of(grant)
        if entry is None:
            return [No("unknown", f"no grant 0x{grant.hex()}")] if tell else []
        if not tell:
            self._withdrawn[grant] = None
        if entry.state == "revoked" or (not tell and not reason):
            return [Gave(entry)]  # the chain forgets what is over by itself; that revokes nothing
        if not reason or reason not in set(Revoked):
            return [No("malformed", f"{reason} is no reason to revoke")]
        effects: list[Any] = [self._save(Ended(grant, reason, int(now_s)))]
        if tell:
            self._asked_at_s[grant] = now_s
            effects.append(Withdraw(grant, reason))
        effects += self._rekey()
        request = self._grants[grant]
        return [*effects, Gave(self.entries[request])]

    def _rekey(self) -> list[Any]:
        if self._rekeying or self._wanted_epoch <= self.key_epoch:
            return []
        self._rekeying = True
        return [Rekey(self._wanted_epoch)]

    def _rekeyed(self, epoch: int) -> Sequence[Any]:
        self._rekeying = False
        effects: list[Any] = [] if epoch <= self.key_epoch else [self._save(KeysAt(epoch))]
        return [*effects, *self._rekey()]

    # --- budgets ---

    def _spend(self, spend: Spend, now_s: float) -> Sequence[Any]:
        known = self._spends.get(spend.order)
        if known is not None:
            same = (known.grant, known.epsilon_micro, known.delta_pico) == (
                spend.grant,
                spend.epsilon_micro,
                spend.delta_pico,
            )
            if not same:
                return [No("replayed", "this order has spent already, and something else")]
            return [Gave(self._told(known))]
        entry = self.entry_of(spend.grant)
        if entry is None or entry.decided is None or entry.decided.grant is None:
            return [No("unknown", f"no grant 0x{spend.grant.hex()} of this vault")]
        if spend.epsilon_micro < 0 or spend.delta_pico < 0:
            return [No("malformed", "nobody spends less than nothing")]
        stated = entry.decided.grant
        try:
            self._check_alive(entry, stated, now_s)
        except Denied as no:
            return [No(no.code, no.detail)]
        why = self._short(spend, entry, stated)
        if why is not None:
            return [No(*why)]
        record = Spending(spend.grant, spend.order, spend.epsilon_micro, spend.delta_pico, int(now_s))
        return [self._save(record), Gave(self._told(self._spends[spend.order]))]

    def _short(self, spend: Spend, entry: Entry, stated: Grant) -> tuple[str, str] | None:
        """Which budget doesn't hold it."""
        asked, policy = spend.epsilon_micro, self.policy
        if entry.uses >= stated.uses:
            return "spent", f"all {stated.uses} uses of this grant are used: ask for another"
        lefts = (
            ("grant", stated.epsilon_micro - entry.spent_micro),
            ("requester", policy.requester_epsilon_micro - self.spent_by(entry.requester)),
            ("vault", self.budget_micro - self.total_spent_micro),
        )
        for whose, left in lefts:
            if asked > left:
                return "budget", (
                    f"ε {epsilon(asked)} is more than the {epsilon(max(0, left))} left to this {whose}: ask for less, or for noisier answers"
                )
        delta_left = policy.total_delta_pico - self._delta_pico
        if spend.delta_pico > delta_left:
            return "delta", f"δ {spend.delta_pico}e-12 is more than the {delta_left}e-12 left to this vault"
        return None

    def _told(self, row: UseRow) -> Spent:
        entry = self.entries[self._grants[row.grant]]
        assert entry.decided is not None
        assert entry.decided.grant is not None
        return Spent(
            row.grant,
            row.order,
            row.epsilon_micro,
            row.delta_pico,
            entry.decided.grant.epsilon_micro - entry.spent_micro,
            self.budget_micro - self.total_spent_micro,
        )

    def _close(self, order: Digest, result: Digest, now_s: float) -> Sequence[Any]:
        row = self._spends.get(order)
        if row is None:
            return [No("unknown", "this order has spent nothing")]
        if row.signed is not None:
            if row.result != result:
                return [No("closed", "this use was closed with another result")]
            return [Gave(row.signed)]
        saved = self._closing(row, result, now_s)
        signed = self._spends[order].signed
        return [saved, Gave(signed)]

    def _closing(self, row: UseRow, result: Digest, now_s: float) -> Save:
        use = Use(
            self.terms.dataset,
            len(self._log),
            row.grant,
            row.requester,
            row.order,
            row.epsilon_micro,
            self._closed_micro.get(row.grant, 0) + row.epsilon_micro,
            self._logged_micro + row.epsilon_micro,
            result,
            max(int(now_s), self._latest_s),
        )
        return self._save(Closed(use, self.terms.sign(use.signing_digest(self.terms.network))))

    # --- time ---

    def _started(self, now_s: float) -> Sequence[Any]:
        """What the chain was asked for, it may have: it tells first, and is asked again after a while.

        What was open when the process died stays open: its ε is spent, so whoever paid for it may ask for the same again and have it
        answered. What nobody comes back for is closed with nothing after `OPEN_S`.
        """
        self._asked_at_s = dict.fromkeys(self._grants, now_s)
        return self._rekey()

    def _asked_again(self, now_s: float) -> list[Any]:
        effects: list[Any] = []
        for entry in self.entries.values():
            grant = entry.grant
            if grant is None or now_s - self._asked_at_s.get(grant, -RETRY_S) < RETRY_S:
                continue
            if entry.state == "approved":
                assert entry.decided is not None
                assert entry.decided.grant is not None
                effects.append(Issue(entry.decided.grant))
            elif entry.state == "revoked" and entry.ended_reason and grant not in self._withdrawn:
                effects.append(Withdraw(grant, entry.ended_reason))
            else:
                continue
            self._asked_at_s[grant] = now_s
        return effects

    def _tick(self, now_s: float) -> Sequence[Any]:
        stale = [
            entry.request
            for entry in self.entries.values()
            if entry.state == "asked"
            and (now_s >= entry.signed.request.expires_s or now_s - entry.asked_s > UNDECIDED_S)
        ]
        left = [self._spends[order] for order in self._open if now_s - self._spends[order].at_s > OPEN_S]
        effects: list[Any] = [self._save(Dropped(request)) for request in stale]
        effects += [self._closing(row, ZERO_DIGEST, now_s) for row in left]
        return [*effects, *self._asked_again(now_s), *self._rekey(), *self._anchoring(now_s)]

    def _anchoring(self, now_s: float) -> list[Any]:
        behind = len(self._log) - self.anchored
        waited_s = now_s - self._anchor_at_s
        if not behind or waited_s < (RETRY_S if behind >= ANCHOR_AT else ANCHOR_EVERY_S):
            return []
        self._anchor_at_s = now_s
        # Not the time now: the chain takes none from its future, and its clock may be behind ours.
        as_of_s = self._latest_s = max(int(now_s) - 3_600, self._latest_s)
        return [Anchor(len(self._log), log_root(self._log), self._logged_micro, as_of_s)]
