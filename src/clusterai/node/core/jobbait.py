"""A provider's part in traps: it lends its name to a lease for which nothing is run, so that auditors who copy are found.

    StartLease with bait ─> does the nonce digest its secret? ─> accepted ── as long as the work would have taken ──> committed
                                                                                                                       │
             drawn where it ends in bait: an audit like any other, and SpringTrap behind the reveal  <─────────────────┤
             drawn elsewhere: nothing could be served there, SpringTrap at once                      <─────────────────┘

Bait convicts whoever is disputed about it, so the provider springs it itself and waits for no gateway. That its secret stood in the
terms before it accepted is what lets it: a secret that the terms don't hold is refused, for with it nothing could be sprung.
"""

from clusterai.ledger.core import events
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.jobs import Bait
from clusterai.protocol.leases import DeterminismClass, Terms, is_bait, trap_nonce


def refusal(terms: Terms, bait: Bait) -> str | None:
    """Why such bait can't be taken."""
    if trap_nonce(Digest(bait.secret)) != terms.nonce:
        return "the terms' nonce doesn't digest this secret, so that the trap could not be sprung"
    if terms.determinism != DeterminismClass.WASM:
        return "bait is made of modules only"
    if terms.expected != ZERO_DIGEST:
        return "bait has no output that could be expected"
    if not bait.segments <= terms.segments <= terms.units:
        return f"{bait.segments} segments, of {terms.segments} and {terms.units} units at most"
    if terms.start_by_s + bait.run_s >= terms.deadline_s:
        return "what would take longer than the deadline allows isn't committed in time"
    return None


class Baits:
    """What the chain showed of leases, as far as bait goes by it."""

    def __init__(self) -> None:
        self._accepted_s: dict[Digest, int] = {}
        self._revealed: set[Digest] = set()

    def follow(self, event: events.LeaseAccepted | events.AuditRevealed, chain_s: int) -> None:
        match event:
            case events.LeaseAccepted(lease):
                self._accepted_s[lease] = chain_s
            case events.AuditRevealed(lease):
                self._revealed.add(lease)

    def forget(self, lease: Digest) -> None:
        self._accepted_s.pop(lease, None)
        self._revealed.discard(lease)

    def waits(self, lease: Digest, bait: Bait, chain_s: int) -> bool:
        """Whether work would still be under way: who commits at once has run nothing."""
        return chain_s < self._accepted_s.get(lease, chain_s) + bait.run_s

    def springs(self, lease: Digest, bait: Bait, segment: int, segments: int, is_demanded: bool) -> bool:
        """Whether it is sprung now, the drawn segment being this one; 0 for none. There are no outputs to be demanded: a gateway that
        does wants its provider convicted."""
        drawn = segment > 0
        idle = drawn and not is_bait(Digest(bait.secret), segment, segments)
        return is_demanded or idle or (drawn and lease in self._revealed)
