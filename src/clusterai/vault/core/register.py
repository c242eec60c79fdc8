"""Who asked a vault, what was granted, and what became of it.

    asked ──> denied
      └─────> approved ──> granted ──> revoked, expired

Says what stands; the `VaultBook` decides what shall, and writes it down.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.access import MOST_CODE_BYTES, MOST_PURPOSE_BYTES
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.vaults import Grant, Operation, Revoked
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.terms import (
    AskedFor,
    Decided,
    Denied,
    Ended,
    Entry,
    Expired,
    Filed,
    Issue,
    Live,
    Record,
    Spending,
    Terms,
    Withdraw,
)

MOST_WAITING = 64
"""Requests that nobody has decided; each may bring half a megabyte of code to read."""
MOST_WAITING_OF_ONE = 4
UNDECIDED_S = 14 * 86_400
RETRY_S = 30.0
"""The chain is asked again after so long."""


class Register:
    """
    Attributes:
        entries: by request.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.entries: dict[Digest, Entry] = {}
        self._grants: dict[Digest, Digest] = {}
        """grant to request"""
        self._asked_at_s: dict[Digest, float] = {}
        """when the chain was asked for a grant, or its end"""
        self._withdrawn: dict[Digest, None] = {}
        """grants that the chain says are revoked; it tells of them again at each start"""
        self._over: dict[Digest, None] = {}
        """grants that were found over and aren't written down as such yet: a clock that is set back revives none"""

    def find(self, grant: Digest) -> Entry | None:
        request = self._grants.get(grant)
        return None if request is None else self.entries[request]

    def request(self, request: Digest) -> Entry:
        """
        Raises:
            Denied: unknown.
        """
        entry = self.entries.get(request)
        if entry is None:
            raise Denied("unknown", f"no request 0x{request.hex()}")
        return entry

    def of(self, grant: Digest) -> tuple[Entry, Decided, Grant]:
        """
        Raises:
            Denied: unknown.
        """
        entry = self.find(grant)
        if entry is None:
            raise Denied(
                "unknown", f"no grant 0x{grant.hex()} of this vault: ask for one with clusterai data request"
            )
        decided = entry.decided
        assert decided is not None
        assert decided.grant is not None, "a grant was decided"
        return entry, decided, decided.grant

    def waiting(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state == "asked"]

    def overdue(self, now_s: float) -> list[Digest]:
        """Requests that nobody decided in time."""
        return [
            entry.request
            for entry in self.waiting()
            if now_s >= entry.signed.request.expires_s or now_s - entry.asked_s > UNDECIDED_S
        ]

    def over(self, now_s: float) -> list[Digest]:
        """Grants whose time is over, and of which that isn't written down yet."""
        return [
            entry.grant
            for entry in self.entries.values()
            if entry.grant is not None
            and entry.state in ("approved", "granted")
            and (now_s >= entry.signed.request.expires_s or entry.grant in self._over)
        ]

    def promised(self, requester: bytes) -> tuple[int, int]:
        """What all living grants could still spend, and those of one requester."""
        everybody, theirs = 0, 0
        for entry in self.entries.values():
            if entry.state in ("approved", "granted"):
                left = entry.signed.request.epsilon_micro - entry.spent_micro
                everybody += left
                theirs += left if entry.requester == requester else 0
        return everybody, theirs

    def check(self, asked: AskedFor, policy: Policy, now_s: float) -> None:
        """Whether a request that nobody knows is filed.

        Raises:
            Denied.
        """
        why = self._refusal(asked, policy, now_s)
        if why is not None:
            raise Denied(*why)

    def _refusal(self, asked: AskedFor, policy: Policy, now_s: float) -> tuple[str, str] | None:
        request = asked.signed.request
        if request.dataset != self._terms.dataset:
            return "dataset", "the request is for another data set"
        if request.requester in (ZERO_ADDRESS, self._terms.owner):
            return "requester", "the owner needs no grant, and nobody has no key"
        if not asked.signed.holds(self._terms.network):
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
        why = policy.refusal(request, now_s)
        if why is not None:
            return why
        waiting = self.waiting()
        if sum(1 for it in waiting if it.requester == request.requester) >= MOST_WAITING_OF_ONE:
            return "busy", f"{MOST_WAITING_OF_ONE} of your requests wait already: wait for the owner"
        if len(waiting) >= MOST_WAITING:
            return "busy", f"{MOST_WAITING} requests wait already: try again in a day"
        return None

    def check_alive(self, entry: Entry, stated: Grant, now_s: float) -> None:
        """
        Raises:
            Denied: pending, revoked, expired.
        """
        if entry.state == "revoked":
            reason = (
                Revoked(entry.ended_reason).name.lower() if entry.ended_reason else "the chain refused it"
            )
            raise Denied("revoked", f"this grant was revoked: {reason}")
        assert entry.grant is not None, "what is stated was granted"
        if entry.state != "expired" and now_s >= stated.expires_s:
            self._over[entry.grant] = None
        if entry.state == "expired" or entry.grant in self._over:
            raise Denied("expired", f"this grant ended at {stated.expires_s}: ask for another")
        if entry.state == "approved":
            raise Denied("pending", "the grant isn't on chain yet: try again in some seconds")
        assert entry.state == "granted", "what was decided and isn't over is granted"

    def allowed(
        self, grant: Digest, signer: Address, operation: int, code: Digest, now_s: float
    ) -> tuple[Entry, Decided, Grant]:
        """The grant, where it is alive and covers this.

        Raises:
            Denied: unknown, requester, pending, revoked, expired, operation, other_code, spent.
        """
        entry, decided, stated = self.of(grant)
        if signer != entry.requester:
            # Before all else: what became of a grant is nobody's business but its holder's.
            raise Denied("requester", "this grant is somebody else's: sign with the key that asked for it")
        self.check_alive(entry, stated, now_s)
        if operation != stated.operation:
            allowed = Operation(stated.operation).name.lower()
            raise Denied("operation", f"this grant is for {allowed}: ask for another")
        if code != stated.code:
            raise Denied(
                "other_code",
                f"the grant is for the program 0x{stated.code.hex()}, and this is 0x{code.hex()}: send the one that was granted, "
                "or ask for a grant for this one",
            )
        check_uses(entry, stated)
        return entry, decided, stated

    # --- what was written down ---

    def apply(self, record: Filed | Decided | Live | Ended | Expired) -> None:
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
            case Expired(grant):
                self._over.pop(Digest(grant), None)
                self._change(Digest(grant), state="expired")

    def count(self, record: Spending) -> Entry:
        """A use of a grant."""
        grant = Digest(record.grant)
        entry = self.entries[self._grants[grant]]
        return self._change(grant, spent_micro=entry.spent_micro + record.epsilon_micro, uses=entry.uses + 1)

    def _decided(self, request: Digest, grant: Grant | None, record: Decided) -> None:
        entry = self.entries[request]
        if grant is None:
            self.entries[request] = msgspec.structs.replace(entry, state="denied", decided=record, code=b"")
            return
        token = grant.struct()
        self._grants[token] = request
        self.entries[request] = msgspec.structs.replace(entry, state="approved", decided=record, grant=token)

    def _change(self, grant: Digest, **changes: Any) -> Entry:
        request = self._grants[grant]
        self.entries[request] = msgspec.structs.replace(self.entries[request], **changes)
        return self.entries[request]

    def drop(self, request: Digest) -> None:
        self.entries.pop(request, None)

    def records(self) -> Iterable[Record]:
        """Everything that anybody may still ask about; denied requests go, and the code of those that ended."""
        for entry in self.entries.values():
            if entry.state == "denied":
                continue
            keeps_code = entry.state in ("asked", "approved", "granted")
            yield Filed(entry.signed, entry.purpose, entry.code if keeps_code else b"", entry.asked_s)
            if entry.decided is None:
                continue
            yield entry.decided
            assert entry.grant is not None, "what isn't denied was granted"
            if entry.state != "approved":
                yield Live(entry.grant, entry.decided.at_s)
            if entry.state == "revoked":
                yield Ended(entry.grant, entry.ended_reason, entry.decided.at_s)
            if entry.state == "expired":
                yield Expired(entry.grant, entry.signed.request.expires_s)

    # --- what the chain was asked for ---

    def chain_asked(self, grant: Digest, now_s: float) -> None:
        self._asked_at_s[grant] = now_s

    def chain_withdrew(self, grant: Digest) -> None:
        self._withdrawn[grant] = None

    def chain_may_know(self, now_s: float) -> None:
        """After a start: what the chain was asked for, it may have; it tells first, and is asked again after a while."""
        self._asked_at_s = dict.fromkeys(self._grants, now_s)

    def chain_can_take(self, grant: Digest) -> None:
        self._asked_at_s.pop(grant, None)

    def asked_again(self, now_s: float) -> list[Any]:
        """Grants and ends of grants that the chain doesn't have after a while."""
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


def check_uses(entry: Entry, stated: Grant) -> None:
    """
    Raises:
        Denied: spent.
    """
    if entry.uses >= stated.uses:
        raise Denied("spent", f"all {stated.uses} uses of this grant are used: ask for another")
