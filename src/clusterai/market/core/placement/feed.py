"""Signed offers and measurements in, an index that can be planned with out. All that arrives is hostile.

    bytes ──decode, bounds──> signature ──> may it? ──> newer? ──> index
                 Malformed        Forged      Unknown     Stale

A machine is offered by its own key, which the Registry binds to an operator with stake; so an operator has no more machines here
than its stake carries (`stake_per_node_wei`), under one name or under many. Serial numbers are remembered for as long as an older
offer could still stand, so nothing that was replaced or taken out comes back by being sent again.

What a validator measured stands in place of what was claimed; of several the newest, of each field. Nobody measures its own
machines. A feed doesn't decide which validators measure: whoever assigns them sees to it that the operator doesn't choose.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from clusterai.market.core.directory import Directory
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import (
    MEASUREMENT_LIFE_S,
    NEWCOMER_RELIABILITY_PPM,
    Coordinate,
    Measurement,
    Offer,
)
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.offers import (
    MOST_LIFE_S,
    Field,
    MachineMeasurement,
    MachineOffer,
    decode_measurement,
    decode_offer,
    signed_digest,
)
from clusterai.protocol.signing import BadSignature

SKEW_S = 30
"""How far clocks may differ."""
MOST_PER_OPERATOR = 10_000
MOST_VALIDATORS = 8
"""Whose measurements of one machine are kept; the oldest gives way."""


class Turned(msgspec.Struct, frozen=True):
    """Why something wasn't taken.

    `malformed`: not a statement. `forged`: not signed by who it says. `unknown`: the key acts for nobody in that role, or not for
    that operator, or nobody offered the machine. `stale`: over, from the future, too long, or not newer than what is known. `own`:
    an operator measured itself. `staked`: its stake carries no more machines.
    """

    reason: Literal["malformed", "forged", "unknown", "stale", "own", "staked"]
    detail: str = ""


class _Known(msgspec.Struct):
    offer: MachineOffer
    heard_s: float
    measured: dict[Address, MachineMeasurement] = msgspec.field(default_factory=dict)


class OfferFeed:
    """Give it bytes; plan with `index`."""

    def __init__(
        self,
        index: Index,
        directory: Directory,
        network: Domain,
        recover: Callable[[Digest, bytes], Address],
        stake_per_node_wei: int,
    ) -> None:
        self.index = index
        self._directory, self._network, self._recover = directory, network, recover
        self._stake_per_node_wei = stake_per_node_wei
        self._known: dict[Address, _Known] = {}
        self._machines: dict[Address, int] = {}
        """by operator, those taken out but not yet forgotten included"""

    def hear_offer(self, data: bytes, signature: bytes, now_s: float) -> Turned | None:
        """None if it was taken."""
        try:
            offer = decode_offer(data)
        except Malformed as error:
            return Turned("malformed", str(error))
        node, operator = Address(offer.node), Address(offer.operator)
        if self._signer(offer, signature) != node:
            return Turned("forged")
        if not self._directory.acts_for(node, operator, Role.PROVIDER):
            return Turned("unknown", "the key isn't this operator's, or the operator may not offer")
        known = self._known.get(node)
        if known is not None and offer.serial <= known.offer.serial:
            return Turned("stale", f"serial {offer.serial} after {known.offer.serial}")
        withdrawn = offer.expires_s <= offer.issued_s
        life = offer.expires_s - offer.issued_s
        if (
            offer.issued_s > now_s + SKEW_S
            or life > MOST_LIFE_S
            or (offer.expires_s <= now_s and not withdrawn)
        ):
            return Turned("stale", "over, from the future, or for too long")
        if known is None:
            if self._machines.get(operator, 0) >= self._most(operator):
                return Turned("staked", f"{self._machines.get(operator, 0)} machines already")
            known = self._known[node] = _Known(offer, now_s)
            self._count(operator, 1)
        elif known.offer.operator != offer.operator:
            self._count(Address(known.offer.operator), -1)
            self._count(operator, 1)
        known.offer, known.heard_s = offer, now_s
        if withdrawn:
            self.index.remove(node)
        else:
            self.index.put(merged(offer, known.measured, now_s), now_s)
        return None

    def hear_measurement(self, data: bytes, signature: bytes, now_s: float) -> Turned | None:
        try:
            measurement = decode_measurement(data)
        except Malformed as error:
            return Turned("malformed", str(error))
        validator = Address(measurement.validator)
        signer = self._signer(measurement, signature)
        if signer is None or self._directory.ever_owner_of(signer) != validator:
            return Turned("forged")
        if not self._directory.acts_for(signer, validator, Role.VALIDATOR):
            return Turned("unknown", "no validator, or its key was revoked")
        known = self._known.get(Address(measurement.node))
        if known is None:
            return Turned("unknown", "nobody offers this machine")
        if known.offer.operator == validator:
            return Turned("own")
        if not now_s - MEASUREMENT_LIFE_S < measurement.at_s <= now_s + SKEW_S:
            return Turned("stale")
        before = known.measured.pop(validator, None)
        if before is not None and before.at_s >= measurement.at_s:
            known.measured[validator] = before
            return Turned("stale", "not newer than this validator's last")
        known.measured[validator] = measurement
        if len(known.measured) > MOST_VALIDATORS:
            del known.measured[min(known.measured, key=lambda it: (known.measured[it].at_s, it))]
        if Address(known.offer.node) in self.index:
            self.index.put(merged(known.offer, known.measured, now_s), now_s)
        return None

    def sweep(self, now_s: float) -> list[Address]:
        """Take out offers that are over and those of operators who may no longer offer; forget what can't come back."""
        gone = self.index.sweep(now_s)
        for node, known in list(self._known.items()):
            operator = Address(known.offer.operator)
            if node in self.index and not self._directory.acts_for(node, operator, Role.PROVIDER):
                self.index.remove(node)
                gone.append(node)
            if node not in self.index and known.heard_s + MOST_LIFE_S + SKEW_S < now_s:
                del self._known[node]
                self._count(operator, -1)
        return gone

    def _signer(self, statement: MachineOffer | MachineMeasurement, signature: bytes) -> Address | None:
        try:
            return self._recover(signed_digest(statement, self._network), signature)
        except BadSignature:
            return None

    def _most(self, operator: Address) -> int:
        if self._stake_per_node_wei <= 0:
            return MOST_PER_OPERATOR
        return min(MOST_PER_OPERATOR, self._directory.stake(operator) // self._stake_per_node_wei)

    def _count(self, operator: Address, more: int) -> None:
        machines = self._machines.get(operator, 0) + more
        if machines:
            self._machines[operator] = machines
        else:
            self._machines.pop(operator, None)


def merged(offer: MachineOffer, measured: dict[Address, MachineMeasurement], now_s: float) -> Offer:
    """The offer as placement sees it: of each field the newest measurement, else the claim."""
    values: dict[str, Any] = {"reliability_ppm": NEWCOMER_RELIABILITY_PPM}
    values |= {name: getattr(offer, name) for name in _CLAIMED}
    coordinate: Coordinate | None = None
    sources: list[Measurement] = []
    fresh = sorted(
        (it for it in measured.values() if it.at_s > now_s - MEASUREMENT_LIFE_S),
        key=lambda it: (it.at_s, it.validator),
    )
    for it in fresh:
        for field, names in _MEASURED.items():
            if it.fields & field:
                values.update({name: getattr(it, name) for name in names})
        if it.fields & Field.COORDINATE:
            coordinate = Coordinate(it.x_us, it.y_us, it.z_us, it.height_us)
        # A clock that runs a little ahead mustn't make its measurement one from the future.
        sources.append(Measurement(it.fields, Address(it.validator), min(it.at_s, int(now_s))))
    return Offer(
        node=Address(offer.node),
        operator=Address(offer.operator),
        price_wei=offer.price_wei,
        coordinate=coordinate,
        issued_s=min(offer.issued_s, int(now_s)),
        expires_s=offer.expires_s,
        measurements=tuple(sources),
        **values,
    )


_CLAIMED = ("hardware", "cpu_milli", "memory_bytes", "gpu", "gpus", "region", "bandwidth_kbps")
_MEASURED: dict[Field, tuple[str, ...]] = {
    Field.HARDWARE: ("hardware",),
    Field.CPU: ("cpu_milli",),
    Field.MEMORY: ("memory_bytes",),
    Field.GPU: ("gpu", "gpus"),
    Field.REGION: ("region",),
    Field.BANDWIDTH: ("bandwidth_kbps",),
    Field.RELIABILITY: ("reliability_ppm",),
}
