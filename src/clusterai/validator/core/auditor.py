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

from clusterai.audit.core.evidence import case_of
from clusterai.audit.core.recount import (
    Commitment,
    Rules,
)
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Mined, Reverted
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.keccak import keccak
from clusterai.protocol.messages import AskEpoch, EpochOpened, Relay, Relayed, Unreachable
from clusterai.protocol.statements import (
    EPOCH_LIST,
)
from clusterai.runtime.machine import Linked, Received, Send, Started, Tick, Unlinked
from clusterai.validator.core.docket import Challenge, Docket
from clusterai.validator.core.intents import Intents, name
from clusterai.validator.core.memory import Memory
from clusterai.validator.core.openings import Openings
from clusterai.validator.core.parameters import Parameters
from clusterai.validator.core.peers import Peers
from clusterai.validator.core.settings import Settings
from clusterai.validator.core.verdicts import Verdicts
from clusterai.validator.core.words import (
    Check,
    Checked,
    CheckFailed,
    Forget,
    Found,
    Noted,
    Overheard,
    Record,
    describe,
)
from clusterai.work.kind import Kind

NO_SIGNATURE = bytes(65)
MANY = 2**62
ASK_AT_ONCE = 32
"""Transcripts asked for in one frame: 32 of the longest usual ones fit."""

CHALLENGES_AT_ONCE = 4

__all__ = ["Auditor", "Settings"]


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
        self.directory = Directory()
        self._dockets: dict[tuple[Address, int], Docket] = {}
        self._gateways: dict[Address, None] = {}
        self._unnamed: list[object] = []
        self._caught_up = False
        self._intents = Intents()
        self._memory = memory = Memory(settings.rules.epoch_s)
        self._openings = Openings(settings, memory, self._rules(recover), unseal)
        self._parameters = Parameters(settings.rules)
        self._verdicts = Verdicts(settings, memory, self.directory, self._parameters, self._intents, sign)
        self._peers = Peers(settings, memory, self.directory, self._intents, recover)

    def _rules(self, recover: Callable[[Digest, bytes], Address]) -> Rules:
        return Rules(
            network=self._settings.network,
            epoch_s=self._settings.rules.epoch_s,
            recover=recover,
            signer=self.directory.ever_owner_of,
            is_gateway=lambda owner: bool(self.directory.roles(owner) & Role.GATEWAY),
            kind_of=self._kind_of,
            recount=self._recount,
        )

    def _kind_of(self, request: bytes) -> str | None:
        for kind in self._kinds.values():
            try:
                kind.decode(request)
            except Malformed:
                continue
            return kind.name
        return None

    def _recount(self, kind: str, request: bytes, tokens: tuple[int, ...]) -> tuple[int, int]:
        known = self._kinds[kind]
        return known.recount(known.decode(request), tokens)

    # --- memory ---

    def restore(self, records: Iterable[Record]) -> None:
        self._memory.restore(records)

    def snapshot(self) -> Sequence[Record]:
        return self._memory.snapshot()

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
                if not self._intents.refused(key, reason):
                    return []
                return [Noted("refused_by_chain", self._settings.me, 0, 0, f"{key}: {reason}")]
            case Overheard(verdict, signature):
                return self._peers.hear(verdict, signature)
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
            case events.EpochCommitted(provider, epoch, root, count, total, round_number, rate_ppm):
                commitment = Commitment(provider, epoch, root, count, total)
                docket = Docket(commitment, round_number, rate_ppm, block)
                docket.found = dict(self._memory.found.get(root, {}))
                self._dockets[provider, epoch] = docket
            case events.BeaconRecorded(round_number, beacon):
                for docket in self.open_dockets():
                    if docket.round == round_number:
                        docket.beacon, docket.beacon_block = beacon, block
            case events.Challenged(by, provider, epoch, index, deadline_s, finish_s):
                docket = self._dockets.get((provider, epoch))
                if docket is not None:
                    bond_wei = self._parameters.now.challenge_bond_wei
                    docket.challenged(by, index, deadline_s, finish_s, bond_wei, block)
            case events.AnswerPart(provider, epoch, index, part, _, sealed):
                challenge = self._challenge_of(provider, epoch, index)
                if challenge is not None:
                    challenge.parts[part] = (block, sealed)
            case events.ChallengeAnswered(provider, epoch, index):
                docket = self._dockets.get((provider, epoch))
                challenge = self._challenge_of(provider, epoch, index)
                if docket is not None and challenge is not None:
                    challenge.answered, challenge.answered_block = True, block
                    return [] if docket.closed else self._openings.on_chain(docket, index, challenge)
            case events.Voted(by, provider, epoch, index) if by == self._settings.me:
                self._verdicts.on_chain[provider, epoch, index] = block
            case events.Voted(by, provider, epoch, index, outcome, evidence) if self._caught_up:
                docket = self._dockets.get((provider, epoch))
                if docket is not None:
                    return self._peers.voted(docket, by, index, outcome, evidence)
            case events.ParametersSet():
                self._parameters.set(event, block)
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
        for docket in self._dockets.values():
            docket.drop_parts(self.directory.block - self._settings.confirmations)
        if timestamp_s >= now_s - self._settings.lag_s:
            self._caught_up = True
        bonds = [effect for docket in self._dockets.values() for effect in self._recover_bonds(docket)]
        over = [d for d in self._dockets.values() if timestamp_s > d.ends_s(self._settings.rules.window_s)]
        return [*bonds, *(self._forget(docket) for docket in over), *self._pursue_all(now_s)]

    def _roll_back(self, number: int) -> None:
        """Undo what the gone blocks said. Verdicts already signed stay signed: see `verdicts`."""
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
                else:
                    challenge.roll_back(number)
        self._verdicts.roll_back(number)
        self._parameters.roll_back(number)
        self._intents.forget()

    def _challenge_of(self, provider: Address, epoch: int, index: int) -> Challenge | None:
        docket = self._dockets.get((provider, epoch))
        return None if docket is None else docket.challenges.get(index)

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
        effects: list[Any] = self._peers.expose()
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
            docket.draw()
            docket.drawn_at_s = self.directory.time_s
        effects: list[Any] = []
        effects += self._ask(docket, now_s)
        effects += self._start_checks(docket, now_s)
        effects += self._challenge(docket)
        effects += self._verdicts.pursue(docket)
        return effects

    def _ask_for_beacon(self, docket: Docket) -> list[Any]:
        """In the epoch of the commitment itself, a call would record nothing that draws from it."""
        if self._settings.rules.beacon is not None:
            return []  # drand's: `pulses` brings it
        epoch_s = self._settings.rules.epoch_s
        epoch = self.directory.time_s // epoch_s
        if epoch <= docket.committed_at_s // epoch_s:
            return []
        return self._intents.submit(f"tick:{epoch}", calls.Tick())

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
            leaf = shown.receipt.struct()
            assert docket.beacon is not None, "what is drawn was drawn by a beacon"
            lot = Digest(keccak(docket.beacon + leaf))
            effects.append(Check(c.provider, c.epoch, index, leaf, shown.transcript, lot))
        return effects

    def _challenge(self, docket: Docket) -> list[Any]:
        """Demand on chain what nobody got over the gateways. Patience begins when this incarnation of ours began to
        ask, or a restart of the validator would be the provider's trouble."""
        rules, now_s = self._parameters.now, self.directory.time_s
        last_s = docket.ends_s(self._settings.rules.window_s) - 3 * rules.answer_s
        due_s = min(docket.drawn_at_s + self._settings.patience_s, last_s - self._settings.margin_s)
        if not due_s <= now_s <= last_s or EPOCH_LIST in docket.faults:
            return []
        effects: list[Any] = []
        for index in docket.withheld()[:CHALLENGES_AT_ONCE]:
            challenge = docket.challenges.get(index)
            if challenge is not None and not challenge.answered:
                continue
            c = docket.commitment
            key = f"challenge:{name(c.provider, c.epoch, index)}:{challenge.round if challenge else 0}"
            if key in self._intents:
                continue
            if rules.challenge_bond_wei:
                effects += self._intents.submit(
                    "approve:court", calls.Approve(self._settings.court.contract, MANY)
                )
            effects += self._intents.submit(key, calls.Challenge(c.provider, c.epoch, index))
            effects.append(docket.note("challenged", index, "not opened over any gateway"))
        return effects

    def _recover_bonds(self, docket: Docket) -> list[Any]:
        """What we paid for a demand that nobody answered is ours again."""
        if not self._caught_up:
            return []
        c = docket.commitment
        return [
            effect
            for index, challenge in docket.challenges.items()
            if challenge.bond_wei
            and challenge.by == self._settings.me
            and not challenge.answered
            and self.directory.time_s > challenge.closes_s
            for effect in self._intents.submit(
                f"bond:{name(c.provider, c.epoch, index)}:{challenge.round}",
                calls.RecoverBond(c.provider, c.epoch, index),
            )
        ]

    # --- what comes back ---

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
        return [*self._openings.over_gateway(docket, gateway, opened, now_s), *self._pursue(docket, now_s)]

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
        note = docket.note("checked", event.index, describe(found), found.evidence)
        return [self._memory.save(found), note, *self._pursue(docket, now_s)]

    def _check_failed(self, event: CheckFailed, now_s: float) -> list[Any]:
        docket = self._dockets.get((event.provider, event.epoch))
        if docket is None or docket.closed or event.index not in docket.shown:
            return []
        if event.final:
            docket.unverifiable[event.index] = event.reason
        else:
            docket.checking[event.index] = now_s + self._settings.retry_s
        return [docket.note("check_failed", event.index, event.reason)]
