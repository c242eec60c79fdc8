"""Validators that don't do their duty.

LazyValidator   never looks: every check "passes" at once
FalseAccuser    calls every epoch fraud, and when that convicts nobody, says something else to others
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from clusterai.ledger.core.calls import Clear, Submit, Vote
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.statements import EPOCH_LIST, Outcome, Verdict, signing_digest
from clusterai.validator.core.auditor import Auditor
from clusterai.validator.core.words import Check, Overheard
from clusterai.work.kind import Findings
from tests.simulation.world.validators import COURT, MATCH_MILLI, Validator


class LazyValidator(Validator):
    def findings(self, check: Check) -> Findings:
        tokens = len(check.transcript.answer.tokens)
        return Findings(tokens, tokens, tokens * MATCH_MILLI, 0)


class Accusing:
    """An auditor whose clearances become accusations."""

    RECORDS = Auditor.RECORDS

    def __init__(self, host: "FalseAccuser", auditor: Auditor) -> None:
        self._host = host
        self._auditor = auditor
        self.directory = auditor.directory

    def restore(self, records: Iterable[Any]) -> None:
        self._auditor.restore(records)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        return self._auditor.snapshot()

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        return [self._turned(effect) for effect in self._auditor.step(event, now_s)]

    def _turned(self, effect: Any) -> Any:
        match effect:
            case Submit(key, Clear(clearance)):
                verdict = Verdict(
                    clearance.provider,
                    clearance.epoch,
                    EPOCH_LIST,
                    ZERO_DIGEST,
                    Outcome.FRAUD,
                    clearance.root,
                )
                return Submit(key, Vote(verdict, (), self._host.accuse(verdict)))
            case _:
                return effect


class FalseAccuser(Validator):
    def build(self) -> Any:
        return Accusing(self, super().build())

    def accuse(self, verdict: Verdict) -> bytes:
        """Sign it; and let others overhear it, and the contradiction that is spread when nobody follows."""
        signature = self.party.hot.sign(signing_digest(verdict, COURT))
        other = msgspec.structs.replace(verdict, outcome=int(Outcome.WITHHELD))
        contradiction = self.party.hot.sign(signing_digest(other, COURT))
        for validator in self.world.validators:
            if validator is not self:
                validator.process.post(50_000, Overheard(verdict, signature))
                validator.process.post(90_000, Overheard(other, contradiction))
        return signature
