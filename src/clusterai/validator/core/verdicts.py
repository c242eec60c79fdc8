"""From findings to statements: the sequential test, the one verdict on a receipt, the clearance of an epoch.

What is decided is journaled before it is signed, and never decided otherwise: two verdicts on one receipt would cost
this validator its stake, even where a reorganisation changed the receipt in between.
"""

from collections.abc import Callable
from typing import Any

from clusterai.audit.core import sequential
from clusterai.audit.core.evidence import ClearedCase, ListCase, case_of
from clusterai.audit.core.recount import Code
from clusterai.ledger.core import calls
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.statements import EPOCH_LIST, Clearance, Outcome, Verdict, signing_digest
from clusterai.validator.core.docket import Docket
from clusterai.validator.core.intents import Intents, name
from clusterai.validator.core.memory import Memory
from clusterai.validator.core.parameters import Parameters
from clusterai.validator.core.settings import Settings
from clusterai.validator.core.words import Accused, Cleared, Weighed, describe

MOST_ACCUSED = 4
"""Verdicts on one epoch. One convicts; the others are for validators that became convinced a receipt earlier or later.
Each shows somebody's prompt and answer to the world."""


class Verdicts:
    """What this validator says of dockets.

    Attributes:
        on_chain: own votes that the chain shows, and since which block.
    """

    def __init__(
        self,
        settings: Settings,
        memory: Memory,
        directory: Directory,
        parameters: Parameters,
        intents: Intents,
        sign: Callable[[Digest], bytes],
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._directory = directory
        self._parameters = parameters
        self._intents = intents
        self._sign = sign
        self.on_chain: dict[tuple[Address, int, int], int] = {}

    def pursue(self, docket: Docket) -> list[Any]:
        """Whatever can be weighed, decided or said by now."""
        return [*self.weigh(docket), *self.judge(docket), *self.cast(docket)]

    def roll_back(self, number: int) -> None:
        """Votes in undone blocks may have to be cast again; they stay decided."""
        for key, block in list(self.on_chain.items()):
            if block > number:
                del self.on_chain[key]

    def weigh(self, docket: Docket) -> list[Any]:
        """Once all that can be checked is, in order of the receipts: so honest validators reach the same receipt."""
        late_s = docket.ends_s(self._settings.rules.window_s) - self._parameters.now.answer_s
        if docket.undecided() and self._directory.time_s < late_s:
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
        return [self._memory.save(weighed)]

    def judge(self, docket: Docket) -> list[Any]:
        effects: list[Any] = []
        for fault in sorted(docket.faults.values(), key=lambda it: (it.index != EPOCH_LIST, it.index)):
            effects += self._accuse(docket, fault.index, Outcome.FRAUD, fault.code, fault.detail)
        weighed = self._memory.weighed.get(docket.commitment.root)
        for index in weighed.suspects if weighed is not None else ():
            detail = describe(docket.found[index]) if index in docket.found else ""
            effects += self._accuse(docket, index, Outcome.FRAUD, Code.WRONG_TOKENS, detail)
        withheld = docket.withheld()
        for index, challenge in docket.challenges.items():
            late = self._directory.time_s > challenge.closes_s and not challenge.answered
            if late and index in withheld:
                parts = f"{len(challenge.parts)} parts of an answer" if challenge.parts else "no answer"
                detail = f"challenged on chain, {parts} by {challenge.closes_s}"
                effects += self._accuse(docket, index, Outcome.WITHHELD, "withheld", detail)
        return effects + self._clear(docket)

    def _clear(self, docket: Docket) -> list[Any]:
        c, drawn = docket.commitment, docket.drawn or ()
        right = docket.receipts is not None and not docket.faults and not docket.unverifiable
        if not right or docket.undecided():
            return []
        if docket.key in self._memory.cleared or self._memory.accusations(docket.key):
            return []
        case = canonical.digest(ClearedCase(c.root, drawn))
        clearance = Clearance(c.provider, c.epoch, c.root, len(drawn), case)
        return [
            self._memory.save(Cleared(clearance)),
            docket.note("cleared", EPOCH_LIST, f"{len(drawn)} of {c.count} audited"),
        ]

    def _accuse(self, docket: Docket, index: int, outcome: Outcome, code: str, detail: str) -> list[Any]:
        """Decide on a verdict, once and for ever: two on one receipt would cost this validator its stake."""
        c = docket.commitment
        if (c.provider, c.epoch, index) in self._memory.accused or docket.key in self._memory.cleared:
            return []
        if len(self._memory.accusations(docket.key)) >= MOST_ACCUSED:
            return []
        leaf, path = ZERO_DIGEST, tuple[Digest, ...]()
        case = canonical.digest(ListCase(c.provider, c.epoch, c.root, index))
        if outcome is Outcome.FRAUD and index != EPOCH_LIST:
            placed, known = docket.path(index), docket.leaf(index)
            if placed is None or known is None:
                return []
            leaf, path = known, placed
            case = evidence(docket, index)
        verdict = Verdict(c.provider, c.epoch, index, leaf, int(outcome), case)
        return [
            self._memory.save(Accused(verdict, path)),
            docket.note("accused", index, f"{code}: {detail}", case),
        ]

    def cast(self, docket: Docket) -> list[Any]:
        """Send what was decided, until the chain shows it."""
        c = docket.commitment
        effects: list[Any] = []
        for key, accused in self._memory.accused.items():
            if key[:2] != docket.key or key in self.on_chain:
                continue
            signature = self._sign(signing_digest(accused.verdict, self._settings.court))
            vote = calls.Vote(accused.verdict, accused.path, signature)
            effects += self._intents.submit(f"vote:{name(*key)}", vote)
        cleared = self._memory.cleared.get(docket.key)
        if cleared is not None and cleared.clearance.root == c.root:
            signature = self._sign(signing_digest(cleared.clearance, self._settings.court))
            key = f"clear:{name(c.provider, c.epoch, EPOCH_LIST)}"
            effects += self._intents.submit(key, calls.Clear(cleared.clearance, signature))
        return effects


def evidence(docket: Docket, index: int) -> Digest:
    """What a verdict of fraud on this receipt carries; the receipt was shown or checked."""
    if index in docket.found:
        return docket.found[index].evidence
    shown = docket.shown[index]
    return case_of(shown.receipt, shown.transcript)
