"""Validators that don't do their duty.

LazyValidator   never looks: every check "passes" at once
FalseAccuser    calls every epoch fraud, and in the next breath withheld
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from clusterai.ledger.core.calls import Clear, Submit, Vote
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.statements import EPOCH_LIST, Outcome, Verdict, signing_digest
from clusterai.validator.core.auditor import Auditor
from clusterai.validator.core.words import Check
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
        return [it for effect in self._auditor.step(event, now_s) for it in self._turned(effect)]

    def _turned(self, effect: Any) -> list[Any]:
        """The second vote on one receipt fails, but its words stand in the chain's blocks."""
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
                other = msgspec.structs.replace(verdict, outcome=int(Outcome.WITHHELD))
                return [
                    Submit(key, Vote(verdict, (), self._host.accuse(verdict))),
                    Submit(f"{key} again", Vote(other, (), self._host.accuse(other))),
                ]
            case _:
                return [effect]


class FalseAccuser(Validator):
    def build(self) -> Any:
        return Accusing(self, super().build())

    def accuse(self, verdict: Verdict) -> bytes:
        return self.party.hot.sign(signing_digest(verdict, COURT))
