"""What a program left stays in the vault until its owner has read it, and lets it go or not.

Letting it go is a use of its own, of no ε: the log names what left.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import SignedUse
from clusterai.vault.adapters.bookkeeping import Bookkeeper
from clusterai.vault.adapters.outputs import Output, Outputs
from clusterai.vault.core.disclosure import MOST_OUTPUT_BYTES, Finding, examine
from clusterai.vault.core.terms import Close, Denied, Spend


class Review:
    """
    Args:
        texts: all private texts of the vault, which an output must not hold.
        numbers: its private columns of numbers, of which the owner is told what an output holds.
        cleaned: an output as the policy wants it, and how many of which kind were taken out of it.
    """

    def __init__(
        self,
        books: Bookkeeper,
        outputs: Outputs,
        texts: Callable[[], Iterable[Any]],
        numbers: Callable[[], Iterable[Iterable[Any]]],
        cleaned: Callable[[bytes], tuple[bytes, dict[str, int]]],
        clock: Callable[[], float],
    ) -> None:
        self._books = books
        self._outputs = outputs
        self._texts = texts
        self._numbers = numbers
        self._cleaned = cleaned
        self._clock = clock

    def hold(self, grant: Digest, order: Digest, output: bytes) -> tuple[Finding, ...]:
        """Keep what a program made, and what disclosure control found in it; durable when it returns.

        An order's first output stays: another run of the same order must not take the place of what the owner is reading.

        Raises:
            Denied: unknown, malformed (too long), busy.
        """
        with self._books.lock:
            entry = self._books.book.entry_of(grant)
        if entry is None:
            raise Denied("unknown", "no such grant")
        known = self._outputs.find(order)
        if known is not None:
            return known.findings
        _check_size(output)
        # Looked through before it is cleaned: a row of which a name is gone is a row.
        findings = examine(output, self._texts(), self._numbers())
        output, removed = self._cleaned(output)
        if removed:
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(removed.items()))
            findings = (*findings, Finding("anonymised", f"taken out: {told}"))
            _check_size(output)
        self._outputs.keep(Output(order, grant, entry.requester, output, findings, int(self._clock())))
        return findings

    def outputs(self) -> list[Output]:
        return self._outputs.all()

    def release(self, order: Digest) -> SignedUse:
        """
        Raises:
            Denied: unknown, closed (withheld), disclosure (it is plainly rows), and what ends a grant.
        """
        held = self._held(order)
        if held.state == "withheld":
            raise Denied("closed", "this output was withheld")
        for finding in held.findings:
            if finding.stops:
                raise Denied(
                    "disclosure",
                    f"{finding.code}: {finding.detail}: withhold it, and ask for another program",
                )
        self._books.step(Spend(Digest(held.grant), release_of(order), 0, 0))
        use = self._used(held)
        self._outputs.keep(msgspec.structs.replace(held, state="released"))
        return use

    def withhold(self, order: Digest, note: str = "") -> None:
        """
        Raises:
            Denied: unknown, closed (released).
        """
        held = self._held(order)
        if held.state == "released":
            raise Denied("closed", "this output left already")
        self._outputs.keep(msgspec.structs.replace(held, state="withheld", note=note, output=b""))

    def released(self, order: Digest, signer: Address) -> tuple[bytes, SignedUse]:
        """An output, for whoever made it.

        Raises:
            Denied: unknown, pending, withheld.
        """
        held = self._outputs.find(order)
        if held is None or held.requester != signer:
            raise Denied("unknown", "no output of yours under this order")
        if held.state == "held":
            raise Denied("pending", "the vault's owner hasn't let it go yet")
        if held.state == "withheld":
            raise Denied("withheld", f"the vault's owner withheld it{f': {held.note}' if held.note else ''}")
        return held.output, self._used(held)

    def _used(self, held: Output) -> SignedUse:
        return self._books.step(Close(release_of(Digest(held.order)), canonical.content_digest(held.output)))

    def _held(self, order: Digest) -> Output:
        held = self._outputs.find(order)
        if held is None:
            raise Denied("unknown", f"no output under 0x{order.hex()}")
        return held


def _check_size(output: bytes) -> None:
    if len(output) > MOST_OUTPUT_BYTES:
        raise Denied("malformed", f"the output has {len(output)} bytes, and {MOST_OUTPUT_BYTES} are the most")


def release_of(order: Digest) -> Digest:
    """The name in the log of letting an order's output go."""
    return canonical.content_digest(b"clusterai release 1" + order)
