"""Other validators: what of their votes can be checked here, and what two statements of one are worth."""

from collections.abc import Callable
from typing import Any

from clusterai.ledger.core import calls
from clusterai.market.core.directory import Directory
from clusterai.protocol.ids import Address, Digest, Role, hex0x
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import EPOCH_LIST, Outcome, Verdict, signing_digest
from clusterai.validator.core.docket import Docket
from clusterai.validator.core.intents import Intents
from clusterai.validator.core.memory import Memory
from clusterai.validator.core.settings import Settings
from clusterai.validator.core.verdicts import evidence as evidence_of
from clusterai.validator.core.words import Heard, Noted, describe


class Peers:
    """Trusts nobody's word: a vote is compared with what this validator has seen itself."""

    def __init__(
        self,
        settings: Settings,
        memory: Memory,
        directory: Directory,
        intents: Intents,
        recover: Callable[[Digest, bytes], Address],
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._directory = directory
        self._intents = intents
        self._recover = recover

    def voted(self, docket: Docket, by: Address, index: int, outcome: int, evidence: Digest) -> list[Any]:
        """Note a vote that can't be reproduced here."""
        why = self._cannot_reproduce(docket, index, outcome, evidence)
        return (
            [] if why is None else [docket.note("disputed_vote", index, f"by {hex0x(by)}: {why}", evidence)]
        )

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
        if index in docket.shown and evidence != evidence_of(docket, index):
            return "its evidence is not of this receipt's case"
        found = docket.found.get(index)
        if found is not None and found.findings.weight_milli <= 0:
            return f"the check here says: {describe(found)}"
        return None

    def hear(self, verdict: Verdict, signature: bytes) -> list[Any]:
        """Two contradicting statements of one validator are worth its stake, to whoever shows them."""
        try:
            key = self._recover(signing_digest(verdict, self._settings.court), signature)
        except BadSignature:
            return []
        owner = self._directory.ever_owner_of(key)
        if owner is None or owner == self._settings.me:
            return []
        if not self._directory.roles(owner) & Role.VALIDATOR or self._directory.barred(owner):
            return []
        heard = Heard(owner, verdict, signature)
        if not self._memory.is_news(heard):
            return []
        effects: list[Any] = [self._memory.save(heard)]
        if owner in self._memory.two_faced:
            place = (Address(verdict.provider), verdict.epoch, verdict.index)
            effects.append(Noted("equivocation", *place, f"by {hex0x(owner)}"))
        return [*effects, *self.expose()]

    def expose(self) -> list[Any]:
        """Show the Court who contradicted itself, until it is slashed; whoever is first gets the bounty."""
        return [
            effect
            for owner, (one, other) in self._memory.two_faced.items()
            if not self._directory.barred(owner)
            for effect in self._intents.submit(
                f"equivocation:{owner.hex()}",
                calls.Equivocation(one.verdict, one.signature, other.verdict, other.signature),
            )
        ]
