"""Hearing what a provider shows, over a gateway or on chain: is it the committed, and what is wrong with it?"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from clusterai.audit.core.evidence import Bundle, case_of
from clusterai.audit.core.opening import (
    ForAnother,
    ListOpening,
    ReceiptOpening,
    places,
    unpack_answer,
)
from clusterai.audit.core.recount import (
    Code,
    Fault,
    Rules,
    list_faults,
    mislabelled,
    transcript_faults,
    unproven_list,
    unproven_receipt,
    unproven_transcript,
    unsigned_order,
)
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.messages import EpochOpened, Transcript
from clusterai.protocol.statements import EPOCH_LIST, Receipt
from clusterai.validator.core.docket import Challenge, Docket, Shown
from clusterai.validator.core.memory import Memory
from clusterai.validator.core.settings import Settings
from clusterai.validator.core.words import Counted, Keep

NO_SIGNATURE = bytes(65)
"""Of a receipt that was opened on chain: the transaction is the provider's signature."""


class Openings:
    """Fills dockets with what was shown and proven; returns what to keep and to note."""

    def __init__(
        self,
        settings: Settings,
        memory: Memory,
        rules: Rules,
        unseal: Callable[[bytes], bytes | None],
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._rules = rules
        self._unseal = unseal

    def over_gateway(self, docket: Docket, gateway: Address, opened: EpochOpened, now_s: float) -> list[Any]:
        """What a gateway brought. Nothing in it accuses anyone that digests don't bind to the commitment."""
        # One hearing for each ask: proving a list costs up to a second, and a gateway may send what it likes.
        if docket.outstanding.get(gateway, 0) == 0:
            return []
        docket.outstanding[gateway] -= 1
        if docket.receipts is None:
            why = unproven_list(docket.commitment, opened.receipts)
        else:
            why = None if opened.receipts == docket.receipts else "another list than before"
        if why is not None:
            return [docket.note("unproven", EPOCH_LIST, f"over gateway {hex0x(gateway)}: {why}")]
        effects = self._take_list(docket, opened.receipts)
        missing = docket.missing()
        for index, sealed in opened.sealed:
            if index in missing and index < len(opened.signatures):
                receipt, signature = opened.receipts[index], opened.signatures[index]
                effects += self._take_sealed(docket, gateway, index, receipt, signature, sealed)
        if docket.missing():
            docket.next_ask_s = min(docket.next_ask_s, now_s + self._settings.retry_s / 4)
        return effects

    def _take_list(self, docket: Docket, receipts: Sequence[Receipt]) -> list[Any]:
        if docket.receipts is not None:
            return []
        docket.receipts = tuple(receipts)
        c = docket.commitment
        for fault in list_faults(c, receipts, self._memory.orders.get(c.provider, {})):
            docket.faults.setdefault(fault.index, fault)
        counted = Counted(c.provider, c.epoch, tuple(Digest(receipt.order) for receipt in receipts))
        effects: list[Any] = [docket.note("opened", EPOCH_LIST, f"{c.count} receipts")]
        return (
            effects
            if counted == self._memory.counted.get((c.provider, c.epoch))
            else [self._memory.save(counted), *effects]
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
                or mislabelled(self._rules, transcript)
                or unsigned_order(self._rules, transcript)
            )
        if why is not None or transcript is None:
            return [docket.note("unproven", index, f"over gateway {hex0x(gateway)}: {why}")]
        return self._take(docket, index, Shown(receipt, transcript, ()), signature)

    def _take(self, docket: Docket, index: int, shown: Shown, signature: bytes) -> list[Any]:
        """A proven transcript: find its faults, or keep it for the check."""
        docket.shown[index] = shown
        for fault in transcript_faults(self._rules, index, shown.receipt, shown.transcript):
            docket.faults.setdefault(index, fault)
        c = docket.commitment
        if index not in docket.faults and self._rules.kind_of(shown.transcript.request) is None:
            docket.unverifiable[index] = (
                f"a request of a kind unknown here, labelled {shown.transcript.kind!r}"
            )
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

    def on_chain(self, docket: Docket, index: int, challenge: Challenge) -> list[Any]:
        """All parts came, by the provider's own transactions: here a wrong opening is its fault, and nobody else's."""
        parts = [sealed for _, (_, sealed) in sorted(challenge.parts.items())]
        try:
            opening = unpack_answer(parts, self._unseal)
        except ForAnother:
            if challenge.by == self._settings.me:
                _bad_answer(docket, "sealed so that the challenger can't open it")
            return []
        except Malformed as error:
            _bad_answer(docket, str(error))
            return []
        c = docket.commitment
        match opening:
            case ListOpening(receipts) if index == EPOCH_LIST:
                why = unproven_list(c, receipts)
                if why is None:
                    return self._take_list(docket, receipts)
            case ReceiptOpening(receipt, path, transcript) if places(opening, c.root, index, c.count):
                why = unproven_transcript(receipt, transcript) or mislabelled(self._rules, transcript)
                if why is None:
                    return self._take_on_chain(docket, index, Shown(receipt, transcript, _digests(path)))
            case _:
                why = f"the opening is not of {'the list' if index == EPOCH_LIST else f'receipt {index}'}"
        _bad_answer(docket, why)
        return []

    def _take_on_chain(self, docket: Docket, index: int, shown: Shown) -> list[Any]:
        if index in docket.shown or index in docket.found:
            return []
        why = unsigned_order(self._rules, shown.transcript)
        if why is not None:
            docket.faults.setdefault(index, Fault(index, Code.UNSIGNED_ORDER, why))
        return self._take(docket, index, shown, NO_SIGNATURE)


def _bad_answer(docket: Docket, why: str) -> None:
    docket.faults.setdefault(EPOCH_LIST, Fault(EPOCH_LIST, Code.BAD_ANSWER, why))


def _digests(raw: Iterable[bytes]) -> tuple[Digest, ...]:
    return tuple(Digest(it) for it in raw)
