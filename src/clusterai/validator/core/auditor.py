"""The validator's machine: from a commitment on chain to a vote, without ever wronging the honest.

    EpochCommitted ─> wait for the beacon, `confirmations` deep ─> draw
        ─> Relay(AskEpoch) through one gateway after another ─> list proven, transcripts proven ─> Check
        ─> all findings in ─> sequential test ─> Vote(fraud) | Clear
        └─ patience ends ─> Challenge ─> answered: go on | deadline passed: Vote(withheld)

What came over a gateway and doesn't fit the commitment is nobody's fault: it counts as not opened. Only what digests
bind to the commitment, or the provider's own transaction says, accuses.

The chain is the memory of what is public: after every start it is told from its first block on, and nothing is done
until it has caught up with the clock. The journal remembers what is only known here: what was counted, found, weighed,
and which verdicts may be signed (never two on one receipt, even when a reorganisation changed it meanwhile).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from clusterai.audit.core import sequential
from clusterai.audit.core.evidence import Bundle, ClearedCase, ListCase, case_of
from clusterai.audit.core.opening import (
    ForAnother,
    ListOpening,
    ReceiptOpening,
    places,
    unpack_answer,
)
from clusterai.audit.core.recount import (
    Code,
    Commitment,
    Fault,
    Rules,
    list_faults,
    transcript_faults,
    unproven_list,
    unproven_receipt,
    unproven_transcript,
    unsigned_order,
)
from clusterai.ledger.core import calls, deploy, events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role, hex0x
from clusterai.protocol.messages import AskEpoch, EpochOpened, Relay, Relayed, Transcript, Unreachable
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import (
    EPOCH_LIST,
    Clearance,
    Outcome,
    Receipt,
    Verdict,
    signing_digest,
)
from clusterai.runtime.machine import Linked, Received, Save, Send, Started, Tick, Unlinked
from clusterai.validator.core.docket import Challenge, Docket, Shown
from clusterai.validator.core.memory import Memory
from clusterai.validator.core.words import (
    Accused,
    Check,
    Checked,
    CheckFailed,
    Cleared,
    Counted,
    Forget,
    Found,
    Keep,
    Noted,
    NoteKind,
    Overheard,
    Record,
    Weighed,
)
from clusterai.work.kind import Kind

NO_SIGNATURE = bytes(65)
MANY = 2**62
ASK_AT_ONCE = 32
"""Transcripts asked for in one frame: 32 of the longest usual ones fit."""

CHALLENGES_AT_ONCE = 4
MOST_OVERHEARD = 10_000
MOST_ACCUSED = 4
"""Verdicts on one epoch. One convicts; the others are for validators that became convinced a receipt earlier or later.
Each shows somebody's prompt and answer to the world."""
AGAIN = frozenset({"AnswerPending", "BeaconPending", "AlreadyChallenged"})
"""Reverts that say "not yet": the same call may succeed in a later block."""
DONE = frozenset({"AlreadyConvicted", "AlreadyVoted", "AlreadyCleared", "NotChallenged"})
"""Reverts that say "no need": another was first, or we were, before a restart."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one validator works.

    Attributes:
        me: this validator's owner.
        seal_to: its X25519 public key.
        network, court: EIP-712 domains.
        rules: the contracts' parameters.
        confirmations: blocks that must stand above a beacon before it is believed.
        patience_s: how long a provider is asked over gateways before it is challenged on chain.
        retry_s: pause between two asks, doubled up to 8 times; and before a failed check is tried again.
        margin_s: how long before the last moment a challenge is sent, for the chain to mine it.
        lag_s: how far the chain's clock may stand behind ours and still count as caught up.
    """

    me: Address
    seal_to: bytes
    network: Domain
    court: Domain
    rules: deploy.Rules
    confirmations: int = 1
    patience_s: int = 20
    retry_s: float = 2.0
    margin_s: int = 4
    lag_s: int = 30


class Auditor:
    """See the module."""

    RECORDS = Record

    def __init__(
        self,
        settings: Settings,
        kinds: Mapping[str, Kind],
        sign: Callable[[Digest], bytes],
        recover: Callable[[Digest, bytes], Address],
        unseal: Callable[[bytes], bytes | None],
    ) -> None:
        self._settings = settings
        self._kinds = kinds
        self._sign = sign
        self._recover = recover
        self._unseal = unseal
        self.directory = Directory()
        self._rules = Rules(
            network=settings.network,
            epoch_s=settings.rules.epoch_s,
            recover=recover,
            signer=self.directory.ever_owner_of,
            is_gateway=lambda owner: bool(self.directory.roles(owner) & Role.GATEWAY),
            recount=self._recount,
        )
        self._dockets: dict[tuple[Address, int], Docket] = {}
        self._gateways: dict[Address, None] = {}
        self._submitted: dict[str, None] = {}
        self._on_chain: dict[tuple[Address, int, int], int] = {}
        self._unnamed: list[object] = []
        self._caught_up = False
        self._overheard: dict[tuple[Address, Address, int, int], tuple[Verdict, bytes]] = {}
        self._memory = Memory(settings.rules.epoch_s)

    # --- memory ---

    def restore(self, records: Iterable[Record]) -> None:
        self._memory.restore(records)

    def snapshot(self) -> Sequence[Record]:
        return self._memory.snapshot()

    def _save(self, record: Record) -> Save:
        self._memory.remember(record)
        return Save(record)

    # --- answers for people ---

    def standing_milli(self, provider: Address, model: Digest) -> int:
        """The sequential test's state; `sequential.BOUND_MILLI` convicts."""
        return self._memory.states.get((provider, model), 0)

    def open_dockets(self) -> tuple[Docket, ...]:
        return tuple(docket for docket in self._dockets.values() if not docket.closed)

    def docket(self, provider: Address, epoch: int) -> Docket | None:
        """What is known of a commitment; None once its window is over."""
        return self._dockets.get((provider, epoch))

    @property
    def caught_up(self) -> bool:
        """Whether the chain's newest known block is recent (or was, since the start)."""
        return self._caught_up

    # --- events ---

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        match event:
            case Tick() | Started():
                return self._pursue_all(now_s)
            case Received(gateway, Relay() as relay):
                return self._relayed(gateway, relay, now_s)
            case Received(_, Unreachable(to)):
                self._unreachable(Address(to), now_s)
                return []
            case Linked(peer):
                self._gateways[peer] = None
                return self._pursue_all(now_s)
            case Unlinked(peer):
                self._gateways.pop(peer, None)
                return []
            case Checked():
                return self._checked(event, now_s)
            case CheckFailed():
                return self._check_failed(event, now_s)
            case Mined():
                return []
            case Reverted(key, reason):
                return self._reverted(key, reason)
            case Overheard(verdict, signature):
                return self._hear_verdict(verdict, signature)
            case _:
                return self._chain(event, now_s)

    # --- the chain ---

    def _chain(self, event: object, now_s: float) -> list[Any]:
        """Events wait for the `Block` that names the block they stand in."""
        match event:
            case events.Block(number, timestamp_s):
                told, self._unnamed = self._unnamed, []
                effects = [effect for it in told for effect in self._event(it, number)]
                self.directory.apply(event)
                return [*effects, *self._block(timestamp_s, now_s)]
            case events.RolledBack(number):
                self._unnamed.clear()
                self.directory.apply(event)
                self._roll_back(number)
            case _:
                self._unnamed.append(event)
        return []

    def _event(self, event: object, block: int) -> list[Any]:
        self.directory.apply(event)
        match event:
            case events.EpochCommitted(provider, epoch, root, count, total, committed_in):
                docket = Docket(Commitment(provider, epoch, root, count, total), committed_in, block)
                docket.found = dict(self._memory.found.get(root, {}))
                self._dockets[provider, epoch] = docket
            case events.BeaconRecorded(_, beacon):
                for docket in self.open_dockets():
                    if docket.beacon is None:
                        docket.beacon, docket.beacon_block = beacon, block
            case events.Challenged(by, provider, epoch, index, deadline_s):
                self._challenged(by, provider, epoch, index, deadline_s, block)
            case events.ChallengeAnswered(provider, epoch, index, sealed):
                return self._answered(provider, epoch, index, sealed, block)
            case events.Voted(by, provider, epoch, index, outcome, evidence):
                return self._voted(by, provider, epoch, index, outcome, evidence, block)
            case events.EpochCleared(provider, epoch):
                self._close(block, [d for key, d in self._dockets.items() if key == (provider, epoch)])
            case events.Convicted(provider):
                self._close(block, [d for key, d in self._dockets.items() if key[0] == provider])
            case _:
                pass
        return []

    def _block(self, timestamp_s: int, now_s: float) -> list[Any]:
        for docket in self.open_dockets():
            if docket.committed_at_s < 0:
                docket.committed_at_s = timestamp_s
        if timestamp_s >= now_s - self._settings.lag_s:
            self._caught_up = True
        bonds = [effect for docket in self._dockets.values() for effect in self._recover_bonds(docket)]
        over = [d for d in self._dockets.values() if timestamp_s > self._ends_s(d)]
        return [*bonds, *(self._forget(docket) for docket in over), *self._pursue_all(now_s)]

    def _roll_back(self, number: int) -> None:
        """Undo what the gone blocks said. Verdicts already signed stay signed: see `_accuse`."""
        for key, docket in list(self._dockets.items()):
            if docket.block > number:
                del self._dockets[key]
                continue
            if docket.beacon_block > number:
                docket.redraw()
            if docket.closed_block > number:
                docket.closed_block = -1
            for index, challenge in list(docket.challenges.items()):
                if challenge.block > number:
                    del docket.challenges[index]
                elif challenge.answered_block > number:
                    challenge.answered, challenge.answered_block = False, -1
        for key, block in list(self._on_chain.items()):
            if block > number:
                del self._on_chain[key]
        self._submitted.clear()

    def _ends_s(self, docket: Docket) -> int:
        """The last second in which a vote on it counts."""
        return docket.committed_at_s + self._settings.rules.window_s

    def _close(self, block: int, dockets: Iterable[Docket]) -> None:
        for docket in dockets:
            docket.closed_block = block

    def _forget(self, docket: Docket) -> Forget:
        """Nothing that is said of this epoch counts any more."""
        del self._dockets[docket.key]
        kept = tuple(Digest(it.verdict.evidence) for it in self._memory.accusations(docket.key))
        self._memory.forget(docket.key, docket.commitment.root)
        return Forget(*docket.key, kept)

    # --- pursuit: whatever is due, again after every start ---

    def _pursue_all(self, now_s: float) -> list[Any]:
        if not self._caught_up:
            return []
        effects: list[Any] = []
        for docket in self.open_dockets():
            effects += self._pursue(docket, now_s)
        return effects

    def _pursue(self, docket: Docket, now_s: float) -> list[Any]:
        if docket.committed_at_s < 0 or self._settings.me == docket.commitment.provider:
            return []
        if docket.beacon is None:
            return self._ask_for_beacon(docket)
        if self.directory.block < docket.beacon_block + self._settings.confirmations:
            return []
        if docket.drawn is None:
            docket.draw(self._settings.rules.audit_rate_ppm)
            docket.drawn_at_s = self.directory.time_s
        effects: list[Any] = []
        effects += self._ask(docket, now_s)
        effects += self._start_checks(docket, now_s)
        effects += self._challenge(docket)
        effects += self._weigh(docket)
        effects += self._judge(docket)
        effects += self._cast(docket)
        return effects

    def _ask_for_beacon(self, docket: Docket) -> list[Any]:
        epoch = self.directory.time_s // self._settings.rules.epoch_s
        return self._submit(f"tick:{epoch}", calls.Tick()) if epoch > docket.committed_in else []

    def _ask(self, docket: Docket, now_s: float) -> list[Any]:
        missing = docket.missing()
        done = docket.key in self._memory.cleared
        enough = (docket.receipts is not None and not missing) or done or EPOCH_LIST in docket.faults
        if enough or now_s < docket.next_ask_s or not self._gateways:
            return []
        gateways = tuple(self._gateways)
        gateway = gateways[docket.asks % len(gateways)]
        round_ = docket.asks // len(gateways)
        docket.asks += 1
        docket.outstanding[gateway] = docket.outstanding.get(gateway, 0) + 1
        docket.next_ask_s = now_s + self._settings.retry_s * min(2**round_, 8)
        c = docket.commitment
        ask = AskEpoch(
            self._settings.me,
            c.provider,
            c.epoch,
            missing[:ASK_AT_ONCE],
            self._settings.seal_to,
            NO_SIGNATURE,
        )
        signature = self._sign(ask.signing_digest(self._settings.network))
        body = canonical.encode(msgspec.structs.replace(ask, signature=signature))
        return [Send(gateway, Relay(self._settings.me, c.provider, body))]

    def _unreachable(self, provider: Address, now_s: float) -> None:
        """That gateway doesn't know it; the next one may, soon, but not in a busy loop."""
        for docket in self.open_dockets():
            if docket.commitment.provider == provider and docket.asks % max(len(self._gateways), 1):
                docket.next_ask_s = min(docket.next_ask_s, now_s + self._settings.retry_s / 4)

    def _start_checks(self, docket: Docket, now_s: float) -> list[Any]:
        due = [
            index
            for index in docket.undecided()
            if index in docket.shown and now_s >= docket.checking.get(index, -1.0)
        ]
        effects: list[Any] = []
        for index in due:
            docket.checking[index] = float("inf")
            shown = docket.shown[index]
            c = docket.commitment
            effects.append(Check(c.provider, c.epoch, index, shown.receipt.struct(), shown.transcript))
        return effects

    def _challenge(self, docket: Docket) -> list[Any]:
        """Demand on chain what nobody got over the gateways. Patience begins when this incarnation of ours began to
        ask, or a restart of the validator would be the provider's trouble."""
        rules, now_s = self._settings.rules, self.directory.time_s
        last_s = self._ends_s(docket) - 2 * rules.answer_s
        due_s = min(docket.drawn_at_s + self._settings.patience_s, last_s - self._settings.margin_s)
        if not due_s <= now_s <= last_s or EPOCH_LIST in docket.faults:
            return []
        effects: list[Any] = []
        for index in docket.withheld()[:CHALLENGES_AT_ONCE]:
            challenge = docket.challenges.get(index)
            if challenge is not None and not challenge.answered:
                continue
            c = docket.commitment
            key = f"challenge:{_key(c.provider, c.epoch, index)}:{challenge.round if challenge else 0}"
            if key in self._submitted:
                continue
            if rules.challenge_bond_wei:
                effects += self._submit("approve:court", calls.Approve(self._settings.court.contract, MANY))
            effects += self._submit(key, calls.Challenge(c.provider, c.epoch, index))
            effects.append(self._note("challenged", docket, index, "not opened over any gateway"))
        return effects

    def _recover_bonds(self, docket: Docket) -> list[Any]:
        """What we paid for a demand that nobody answered is ours again."""
        if not self._caught_up or not self._settings.rules.challenge_bond_wei:
            return []
        c = docket.commitment
        return [
            effect
            for index, challenge in docket.challenges.items()
            if challenge.by == self._settings.me
            and not challenge.answered
            and self.directory.time_s > challenge.deadline_s
            for effect in self._submit(
                f"bond:{_key(c.provider, c.epoch, index)}:{challenge.round}",
                calls.RecoverBond(c.provider, c.epoch, index),
            )
        ]

    def _weigh(self, docket: Docket) -> list[Any]:
        """Once all that can be checked is, in order of the receipts: so honest validators reach the same receipt."""
        late_s = self._ends_s(docket) - self._settings.rules.answer_s
        if docket.undecided() and self.directory.time_s < late_s:
            return []
        c = docket.commitment
        before = self._memory.weighed.get(c.root)
        done = before.indices if before is not None else ()
        new = [index for index in docket.drawn or () if index in docket.found and index not in done]
        if not new:
            return []
        states: dict[Digest, int] = {}
        suspects: list[int] = list(before.suspects) if before is not None else []
        for index in new:
            found = docket.found[index]
            state = states.get(found.model, self._memory.states.get((c.provider, found.model), 0))
            states[found.model] = state = sequential.add(state, found.findings.weight_milli)
            if found.findings.weight_milli > 0 and sequential.convinced(state):
                suspects.append(index)
        weighed = Weighed(c.provider, c.epoch, c.root, tuple(states.items()), (*done, *new), tuple(suspects))
        return [self._save(weighed)]

    # --- judgement ---

    def _judge(self, docket: Docket) -> list[Any]:
        effects: list[Any] = []
        for fault in sorted(docket.faults.values(), key=lambda it: (it.index != EPOCH_LIST, it.index)):
            effects += self._accuse(docket, fault.index, Outcome.FRAUD, fault.code, fault.detail)
        weighed = self._memory.weighed.get(docket.commitment.root)
        for index in weighed.suspects if weighed is not None else ():
            detail = _describe(docket.found[index]) if index in docket.found else ""
            effects += self._accuse(docket, index, Outcome.FRAUD, Code.WRONG_TOKENS, detail)
        withheld = docket.withheld()
        for index, challenge in docket.challenges.items():
            late = self.directory.time_s > challenge.deadline_s and not challenge.answered
            if late and index in withheld:
                detail = f"challenged on chain, not answered by {challenge.deadline_s}"
                effects += self._accuse(docket, index, Outcome.WITHHELD, "withheld", detail)
        return effects + self._clear(docket)

    def _clear(self, docket: Docket) -> list[Any]:
        c, drawn = docket.commitment, docket.drawn or ()
        right = docket.receipts is not None and not docket.faults and not docket.unverifiable
        if not right or docket.undecided():
            return []
        if docket.key in self._memory.cleared or self._memory.accusations(docket.key):
            return []
        evidence = canonical.digest(ClearedCase(c.root, drawn))
        clearance = Clearance(c.provider, c.epoch, c.root, len(drawn), evidence)
        return [
            self._save(Cleared(clearance)),
            self._note("cleared", docket, EPOCH_LIST, f"{len(drawn)} of {c.count} audited"),
        ]

    def _accuse(self, docket: Docket, index: int, outcome: Outcome, code: str, detail: str) -> list[Any]:
        """Decide on a verdict, once and for ever: two on one receipt would cost this validator its stake."""
        c = docket.commitment
        if (c.provider, c.epoch, index) in self._memory.accused or docket.key in self._memory.cleared:
            return []
        if len(self._memory.accusations(docket.key)) >= MOST_ACCUSED:
            return []
        leaf, path = ZERO_DIGEST, tuple[Digest, ...]()
        evidence = canonical.digest(ListCase(c.provider, c.epoch, c.root, index))
        if outcome is Outcome.FRAUD and index != EPOCH_LIST:
            placed, known = docket.path(index), docket.leaf(index)
            if placed is None or known is None:
                return []
            leaf, path = known, placed
            evidence = self._evidence(docket, index)
        verdict = Verdict(c.provider, c.epoch, index, leaf, int(outcome), evidence)
        return [
            self._save(Accused(verdict, path)),
            self._note("accused", docket, index, f"{code}: {detail}", evidence),
        ]

    def _evidence(self, docket: Docket, index: int) -> Digest:
        if index in docket.found:
            return docket.found[index].evidence
        shown = docket.shown[index]
        return case_of(shown.receipt, shown.transcript)

    def _cast(self, docket: Docket) -> list[Any]:
        """Send what was decided, until the chain shows it."""
        c = docket.commitment
        effects: list[Any] = []
        for key, accused in self._memory.accused.items():
            if key[:2] != docket.key or key in self._on_chain:
                continue
            signature = self._sign(signing_digest(accused.verdict, self._settings.court))
            vote = calls.Vote(accused.verdict, accused.path, signature)
            effects += self._submit(f"vote:{_key(*key)}", vote)
        cleared = self._memory.cleared.get(docket.key)
        if cleared is not None and cleared.clearance.root == c.root:
            signature = self._sign(signing_digest(cleared.clearance, self._settings.court))
            key = f"clear:{_key(c.provider, c.epoch, EPOCH_LIST)}"
            effects += self._submit(key, calls.Clear(cleared.clearance, signature))
        return effects

    # --- openings ---

    def _relayed(self, gateway: Address, relay: Relay, now_s: float) -> list[Any]:
        try:
            opened = canonical.decode(relay.body, cast("type[AskEpoch | EpochOpened]", Relayed))
        except Malformed:
            return []
        if not isinstance(opened, EpochOpened):
            return []
        docket = self._dockets.get((Address(opened.provider), opened.epoch))
        if docket is None or docket.closed or docket.drawn is None:
            return []
        # One hearing for each ask: proving a list costs up to a second, and a gateway may send what it likes.
        if docket.outstanding.get(gateway, 0) == 0:
            return []
        docket.outstanding[gateway] -= 1
        if docket.receipts is None:
            why = unproven_list(docket.commitment, opened.receipts)
        else:
            why = None if opened.receipts == docket.receipts else "another list than before"
        if why is not None:
            return [self._note("unproven", docket, EPOCH_LIST, f"over gateway {hex0x(gateway)}: {why}")]
        effects = self._take_list(docket, opened.receipts)
        missing = docket.missing()
        for index, sealed in opened.sealed:
            if index in missing and index < len(opened.signatures):
                receipt, signature = opened.receipts[index], opened.signatures[index]
                effects += self._take_sealed(docket, gateway, index, receipt, signature, sealed)
        if docket.missing():
            docket.next_ask_s = min(docket.next_ask_s, now_s + self._settings.retry_s / 4)
        return effects + self._pursue(docket, now_s)

    def _take_list(self, docket: Docket, receipts: Sequence[Receipt]) -> list[Any]:
        if docket.receipts is not None:
            return []
        docket.receipts = tuple(receipts)
        c = docket.commitment
        for fault in list_faults(c, receipts, self._memory.orders.get(c.provider, {})):
            docket.faults.setdefault(fault.index, fault)
        counted = Counted(c.provider, c.epoch, tuple(Digest(receipt.order) for receipt in receipts))
        effects: list[Any] = [self._note("opened", docket, EPOCH_LIST, f"{c.count} receipts")]
        return (
            effects
            if counted == self._memory.counted.get((c.provider, c.epoch))
            else [self._save(counted), *effects]
        )

    def _take_sealed(
        self, docket: Docket, gateway: Address, index: int, receipt: Receipt, signature: bytes, sealed: bytes
    ) -> list[Any]:
        """A transcript as a gateway brought it: what isn't bound to the receipt may be the gateway's doing."""
        plain = self._unseal(sealed)
        why = None if plain is not None else "not sealed to this validator"
        transcript: Transcript | None = None
        try:
            transcript = canonical.decode(plain or b"", Transcript)
        except Malformed as error:
            why = why or str(error)
        if transcript is not None:
            why = (
                unproven_receipt(self._rules, receipt, signature)
                or unproven_transcript(receipt, transcript)
                or unsigned_order(self._rules, transcript)
            )
        if why is not None or transcript is None:
            return [self._note("unproven", docket, index, f"over gateway {hex0x(gateway)}: {why}")]
        return self._take(docket, index, Shown(receipt, transcript, ()), signature)

    def _take(self, docket: Docket, index: int, shown: Shown, signature: bytes) -> list[Any]:
        """A proven transcript: find its faults, or keep it for the check."""
        docket.shown[index] = shown
        for fault in transcript_faults(self._rules, index, shown.receipt, shown.transcript):
            docket.faults.setdefault(index, fault)
        c = docket.commitment
        if index not in docket.faults and shown.transcript.kind not in self._kinds:
            docket.unverifiable[index] = f"unknown kind of work {shown.transcript.kind!r}"
        bundle = Bundle(
            c.root,
            index,
            c.count,
            shown.receipt,
            signature,
            docket.path(index) or (),
            shown.transcript,
        )
        return [Keep(case_of(shown.receipt, shown.transcript), c.epoch, bundle)]

    def _challenged(
        self, by: Address, provider: Address, epoch: int, index: int, deadline_s: int, block: int
    ) -> None:
        docket = self._dockets.get((provider, epoch))
        if docket is not None:
            before = docket.challenges.get(index)
            docket.challenges[index] = Challenge(by, deadline_s, block, before.round + 1 if before else 1)

    def _answered(self, provider: Address, epoch: int, index: int, sealed: bytes, block: int) -> list[Any]:
        """The provider's own transaction: here a wrong opening is its fault, and nobody else's."""
        docket = self._dockets.get((provider, epoch))
        challenge = docket.challenges.get(index) if docket is not None else None
        if docket is None or challenge is None or docket.closed:
            return []
        challenge.answered, challenge.answered_block = True, block
        try:
            opening = unpack_answer(sealed, self._unseal)
        except ForAnother:
            if challenge.by == self._settings.me:
                self._bad_answer(docket, "sealed so that the challenger can't open it")
            return []
        except Malformed as error:
            self._bad_answer(docket, str(error))
            return []
        c = docket.commitment
        match opening:
            case ListOpening(receipts) if index == EPOCH_LIST:
                why = unproven_list(c, receipts)
                if why is None:
                    return self._take_list(docket, receipts)
            case ReceiptOpening(receipt, path, transcript) if places(opening, c.root, index, c.count):
                why = unproven_transcript(receipt, transcript)
                if why is None:
                    return self._take_on_chain(docket, index, Shown(receipt, transcript, _digests(path)))
            case _:
                why = f"the opening is not of {'the list' if index == EPOCH_LIST else f'receipt {index}'}"
        self._bad_answer(docket, why)
        return []

    def _take_on_chain(self, docket: Docket, index: int, shown: Shown) -> list[Any]:
        if index in docket.shown or index in docket.found:
            return []
        why = unsigned_order(self._rules, shown.transcript)
        if why is not None:
            docket.faults.setdefault(index, Fault(index, Code.UNSIGNED_ORDER, why))
        return self._take(docket, index, shown, NO_SIGNATURE)

    def _bad_answer(self, docket: Docket, why: str) -> None:
        docket.faults.setdefault(EPOCH_LIST, Fault(EPOCH_LIST, Code.BAD_ANSWER, why))

    def _recount(self, kind: str, request: bytes, tokens: tuple[int, ...]) -> tuple[int, int]:
        known = self._kinds[kind]
        return known.recount(known.decode(request), tokens)

    # --- checks ---

    def _checked(self, event: Checked, now_s: float) -> list[Any]:
        docket = self._dockets.get((event.provider, event.epoch))
        if docket is None or docket.closed or event.index not in docket.shown:
            return []
        shown = docket.shown[event.index]
        if shown.receipt.struct() != event.leaf or event.index in docket.found:
            return []
        found = Found(
            event.provider,
            event.epoch,
            docket.commitment.root,
            event.index,
            event.leaf,
            Digest(shown.receipt.model),
            case_of(shown.receipt, shown.transcript),
            shown.path,
            event.findings,
        )
        docket.found[event.index] = found
        note = self._note("checked", docket, event.index, _describe(found), found.evidence)
        return [self._save(found), note, *self._pursue(docket, now_s)]

    def _check_failed(self, event: CheckFailed, now_s: float) -> list[Any]:
        docket = self._dockets.get((event.provider, event.epoch))
        if docket is None or docket.closed or event.index not in docket.shown:
            return []
        if event.final:
            docket.unverifiable[event.index] = event.reason
        else:
            docket.checking[event.index] = now_s + self._settings.retry_s
        return [self._note("check_failed", docket, event.index, event.reason)]

    # --- other validators ---

    def _voted(
        self,
        by: Address,
        provider: Address,
        epoch: int,
        index: int,
        outcome: int,
        evidence: Digest,
        block: int,
    ) -> list[Any]:
        if by == self._settings.me:
            self._on_chain[provider, epoch, index] = block
            return []
        docket = self._dockets.get((provider, epoch))
        why = self._cannot_reproduce(docket, index, outcome, evidence) if docket is not None else None
        if docket is None or why is None or not self._caught_up:
            return []
        return [self._note("disputed_vote", docket, index, f"by {hex0x(by)}: {why}", evidence)]

    def _cannot_reproduce(self, docket: Docket, index: int, outcome: int, evidence: Digest) -> str | None:
        """What speaks against another's vote, as far as this validator has looked itself."""
        c = docket.commitment
        if outcome == Outcome.WITHHELD:
            opened = docket.receipts is not None if index == EPOCH_LIST else index in docket.shown
            return "it was opened to this validator" if opened else None
        if index == EPOCH_LIST:
            if docket.receipts is None or EPOCH_LIST in docket.faults:
                return None
            return "the list was opened here, and nothing is wrong with it"
        if (c.provider, c.epoch, index) in self._memory.accused or index in docket.faults:
            return None
        if index in docket.shown and evidence != self._evidence(docket, index):
            return "its evidence is not of this receipt's case"
        found = docket.found.get(index)
        if found is not None and found.findings.weight_milli <= 0:
            return f"the check here says: {_describe(found)}"
        return None

    def _hear_verdict(self, verdict: Verdict, signature: bytes) -> list[Any]:
        """Two contradicting statements of one validator are worth its stake, to whoever shows them."""
        try:
            key = self._recover(signing_digest(verdict, self._settings.court), signature)
        except BadSignature:
            return []
        owner = self.directory.ever_owner_of(key)
        if owner is None or owner == self._settings.me:
            return []
        if not self.directory.roles(owner) & Role.VALIDATOR or self.directory.barred(owner):
            return []
        place = (owner, Address(verdict.provider), verdict.epoch, verdict.index)
        first = self._overheard.get(place)
        if first is None:
            if len(self._overheard) >= MOST_OVERHEARD:
                self._overheard.pop(next(iter(self._overheard)))
            self._overheard[place] = (verdict, signature)
            return []
        if (first[0].outcome, first[0].leaf) == (verdict.outcome, verdict.leaf):
            return []
        return [
            *self._submit(f"equivocation:{owner.hex()}", calls.Equivocation(*first, verdict, signature)),
            Noted(
                "equivocation",
                Address(verdict.provider),
                verdict.epoch,
                verdict.index,
                f"by {hex0x(owner)}",
            ),
        ]

    # --- the outbox ---

    def _submit(self, key: str, call: calls.Call) -> list[Any]:
        """Once per incarnation; a restarted validator submits again, and the chain refuses what it has."""
        if key in self._submitted:
            return []
        self._submitted[key] = None
        return [Submit(key, call)]

    def _reverted(self, key: str, reason: str) -> list[Any]:
        if reason in AGAIN:
            self._submitted.pop(key, None)
        if reason in DONE:
            return []
        note = Noted("refused_by_chain", self._settings.me, 0, 0, f"{key}: {reason}")
        return [note]

    def _note(
        self, kind: NoteKind, docket: Docket, index: int, detail: str, evidence: Digest | None = None
    ) -> Noted:
        c = docket.commitment
        return Noted(kind, c.provider, c.epoch, index, detail, evidence)


def _key(provider: Address, epoch: int, index: int) -> str:
    return f"{provider.hex()}:{epoch}:{index}"


def _digests(raw: Iterable[bytes]) -> tuple[Digest, ...]:
    return tuple(Digest(it) for it in raw)


def _describe(found: Found) -> str:
    it = found.findings
    gap = "impossible" if it.largest_gap_milli < 0 else f"{it.largest_gap_milli / 1000:.3f}"
    return (
        f"{it.matches} of {it.tokens} tokens drawn again, largest gap {gap}, "
        f"weight {it.weight_milli / 1000:+.2f} nats"
    )
