"""What of a provider's leases may be seen by whom: the drawn segment's start by auditors, the last state where the outputs are demanded.

    AskSegment(drawn)  ── a validator in good standing ──> Serve: the state before it, and no other, or an audit wouldn't be blind
    AskSegment(T + 1)  ── the same, while a demand is open ──> Serve: the last state, and the outputs
    AskSealed(content) ──────────────────────────────────> ServePart: if one of the two names it

Whom the chain will believe is the chain's affair: any validator may see, the drawn one and those who have to find out whether
something is withheld. Neither of the lease's parties is one of them.
"""

from collections.abc import Callable
from typing import Any, cast

import msgspec

from clusterai.audit.core.segments import Opening
from clusterai.ledger.core import events
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.jobs import AskSealed, AskSegment, NotServed
from clusterai.protocol.messages import Relay
from clusterai.protocol.signing import BadSignature
from clusterai.runtime.machine import Send

_ASKS = cast("type[AskSegment | AskSealed]", AskSegment | AskSealed)


class Serve(msgspec.Struct, frozen=True):
    """Seal to `ask.validator` the state before the segment it asks for, and send it through `gateway`. After the last segment comes
    what is delivered: the last state, and the outputs."""

    gateway: Address
    ask: AskSegment
    units: int
    proof: tuple[Digest, ...]


class ServePart(msgspec.Struct, frozen=True):
    """Seal a part of a content, if what is shown of one of these segments names it."""

    gateway: Address
    ask: AskSealed
    segments: tuple[int, ...]


class Showing:
    """One provider's. `drawn` is a lease's drawn segment and `seeds` what drew it, `demands` until when its outputs are demanded; both from the chain."""

    def __init__(
        self,
        me: Address,
        network: Domain,
        recover: Callable[[Digest, bytes], Address],
        directory: Directory,
    ) -> None:
        self.drawn: dict[Digest, int] = {}
        self.seeds: dict[Digest, Digest] = {}
        self.demands: dict[Digest, int] = {}
        self._me = me
        self._network = network
        self._recover = recover
        self._directory = directory

    def follow(self, event: events.LeaseDrawn | events.DeliveryDemanded | events.DemandEnded) -> None:
        match event:
            case events.LeaseDrawn(lease, seed, audited, segment):
                if audited:
                    self.drawn[lease] = segment
                    self.seeds[lease] = seed
            case events.DeliveryDemanded(lease):
                self.demands[lease] = event.report_by_s
            case events.DemandEnded(lease):
                self.demands.pop(lease, None)

    def forget(self, lease: Digest) -> None:
        self.drawn.pop(lease, None)
        self.seeds.pop(lease, None)
        self.demands.pop(lease, None)

    def asked(
        self,
        gateway: Address,
        validator: Address,
        body: bytes,
        lease_of: Callable[[Digest], tuple[Address, int] | None],
        opened: Callable[[Digest, int], Opening],
    ) -> list[Any]:
        """
        Args:
            lease_of: requester and number of segments of a lease; zero where it isn't done.
            opened: a state of what was done, with its place in the commitment.
        """
        try:
            ask = canonical.decode(body, _ASKS)
        except Malformed:
            return []
        if ask.provider != self._me or ask.validator != validator:
            return []
        lease = Digest(ask.lease)
        known = lease_of(lease)
        requester, segments = known or (self._me, 0)
        shown = self._shown(lease, segments)
        if not shown or not self._may_see(ask, requester):
            code = "unknown_lease" if known is None else "not_drawn"
            return [Send(gateway, Relay(self._me, validator, canonical.encode(NotServed(ask.lease, code))))]
        if isinstance(ask, AskSealed):
            return [ServePart(gateway, ask, shown)]
        if ask.segment not in shown:
            return []
        before = opened(lease, ask.segment - 1)
        return [Serve(gateway, ask, before.units, before.proof)]

    def _shown(self, lease: Digest, segments: int) -> tuple[int, ...]:
        """Segments whose beginnings may be seen."""
        if not segments:
            return ()
        drawn = (self.drawn[lease],) if lease in self.drawn else ()
        return (*drawn, segments + 1) if lease in self.demands else drawn

    def _may_see(self, ask: AskSegment | AskSealed, requester: Address) -> bool:
        validator = Address(ask.validator)
        if validator in (self._me, requester) or not self._directory.stake(validator):
            return False
        try:
            signer = self._recover(ask.signing_digest(self._network), ask.signature)
        except BadSignature:
            return False
        return self._directory.acts_for(signer, validator, Role.VALIDATOR)
