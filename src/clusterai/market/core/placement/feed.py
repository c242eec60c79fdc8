"""Signed offers and measurements in, an index that can be planned with out. All that arrives is hostile.

    bytes ──decode, bounds──> signature ──> may it? ──> newer? ──> index
                 Malformed        Forged      Unknown     Stale

A machine is offered by its own key, which the Registry binds to an operator with stake; so an operator has no more machines here
than its stake carries (`stake_per_node_wei`), under one name or under many. Serial numbers are remembered for as long as an older
offer could still stand, so nothing that was replaced or taken out comes back by being sent again.

What validators measured stands in place of what was claimed: of each field the lower middle one of what they found, of places the one
nearest to the others, so that of three one liar moves nothing beyond what an honest one found. What only one of several found doesn't count: else a
liar alone would find the card, the region or the want of memory that the others looked for in vain. Nobody measures its own machines, and only
who was drawn for it measures at all (`assigned.py`): `may_measure` says who that is.
"""

from collections.abc import Callable, Iterable, Sequence
from math import isqrt
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
MOST_MACHINES = 200_000
MOST_VALIDATORS = 8
"""Whose measurements of one machine are kept; the oldest gives way."""


class Turned(msgspec.Struct, frozen=True):
    """Why something wasn't taken.

    `malformed`: not a statement. `forged`: not signed by who it says. `unknown`: the key acts for nobody in that role, or not for
    that operator, or nobody offered the machine. `stale`: over, from the future, too long, or not newer than what is known. `own`:
    an operator measured itself. `unassigned`: this validator wasn't drawn for that operator. `staked`: its stake carries no more
    machines. `full`: this feed carries no more.
    """

    reason: Literal["malformed", "forged", "unknown", "stale", "own", "unassigned", "staked", "full"]
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
        most_machines: int = MOST_MACHINES,
        may_measure: Callable[[Address, Address, float], bool] | None = None,
    ) -> None:
        """
        Args:
            may_measure: whether an operator's machines are a validator's to measure, at that time; every validator's by default.
        """
        self._may_measure = may_measure
        self.index = index
        self._directory, self._network, self._recover = directory, network, recover
        self._stake_per_node_wei, self._most_machines = stake_per_node_wei, most_machines
        self._known: dict[Address, _Known] = {}
        self._machines: dict[Address, dict[Address, None]] = {}
        """by operator, those taken out but not yet forgotten included"""
        self._belongs: dict[Address, tuple[Address, int]] = {}
        """by operator: whose its machines are, until when"""
        self._unswept: list[Address] = []
        self._left: dict[Address, _Known] = {}
        """What was found of machines that aren't offered for longer, as of one that is rented for a day; the oldest gives way."""

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
        # The very same offer may be said again, as after a link that broke.
        if known is not None and offer.serial <= known.offer.serial and offer != known.offer:
            return Turned("stale", f"serial {offer.serial} after {known.offer.serial}")
        withdrawn = offer.expires_s <= offer.issued_s
        life = offer.expires_s - offer.issued_s
        if (
            offer.issued_s > now_s + SKEW_S
            or life > MOST_LIFE_S
            or (offer.expires_s <= now_s and not withdrawn)
        ):
            return Turned("stale", "over, from the future, or for too long")
        if known is not None and known.offer.operator != operator:
            # Its key went over to another owner: what was found of it was found under the last one.
            self.index.remove(node)
            self._forget(node)
            known = None
        if known is None:
            if len(self._machines.get(operator, ())) >= self._most(operator):
                return Turned("staked", f"{len(self._machines.get(operator, ()))} machines already")
            if len(self._known) >= self._most_machines:
                return Turned("full", f"{len(self._known)} machines already")
            left = self._left.pop(node, None)
            same = left is not None and left.offer.operator == operator
            known = self._known[node] = _Known(
                offer, now_s, left.measured if left is not None and same else {}
            )
        self._machines.setdefault(operator, {})[node] = None
        known.offer, known.heard_s = offer, now_s
        if withdrawn:
            self.index.remove(node)
        else:
            self._put(known, now_s)
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
        if validator in (known.offer.operator, self.belongs_to(Address(known.offer.operator), now_s)):
            return Turned("own")
        if self._may_measure is not None and not self._may_measure(
            Address(known.offer.operator), validator, now_s
        ):
            return Turned("unassigned", "another was drawn")
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
            self._put(known, now_s)
        return None

    def belong(self, operator: Address, owner: Address | None, until_s: int, now_s: float) -> None:
        """Whose the operator's machines are from now on, as both of them signed; None takes back what was said before."""
        before = self._belongs.pop(operator, None)
        if owner is not None:
            self._belongs[operator] = owner, until_s
        if before is None and owner is None:
            return
        for node in self._machines.get(operator, ()):
            if node in self.index:
                self._put(self._known[node], now_s)

    def belongs_to(self, operator: Address, now_s: float) -> Address | None:
        """Whose an operator's machines are; None where nobody else's."""
        owner, until_s = self._belongs.get(operator, (None, 0))
        return owner if until_s > now_s else None

    def away(self, operator: Address) -> list[Address]:
        """The operator can't be reached, so nothing of it can be placed until it offers again; says what was taken out."""
        gone = [node for node in self._machines.get(operator, ()) if node in self.index]
        for node in gone:
            self.index.remove(node)
        return gone

    def doubt(self, owner: Address) -> list[Address]:
        """The Registry says something new of an owner: what it may no longer offer is taken out."""
        gone: list[Address] = []
        standing = 0
        for node in self._machines.get(owner, ()):
            if node not in self.index:
                continue
            standing += 1
            if standing > self._most(owner) or not self._directory.acts_for(node, owner, Role.PROVIDER):
                self.index.remove(node)
                gone.append(node)
        return gone

    def sweep(self, now_s: float, most: int | None = None) -> list[Address]:
        """Take out offers that are over and those of operators who may no longer offer; forget what can't come back.

        Args:
            most: machines that are looked at, beginning where the last sweep ended; all of them by default. What expired is
                taken out in any case.
        """
        gone = self.index.sweep(now_s)
        for operator in [it for it, (_, until_s) in self._belongs.items() if until_s <= now_s]:
            self.belong(operator, None, 0, now_s)
        if not self._unswept:
            self._unswept = list(self._known)
        looked = len(self._unswept) if most is None else most
        batch, self._unswept = self._unswept[:looked], self._unswept[looked:]
        for node in batch:
            known = self._known.get(node)
            if known is None:
                continue
            operator = Address(known.offer.operator)
            if node in self.index and not self._directory.acts_for(node, operator, Role.PROVIDER):
                self.index.remove(node)
                gone.append(node)
            if node not in self.index and known.heard_s + MOST_LIFE_S + SKEW_S < now_s:
                self._forget(node)
                if any(it.at_s > now_s - MEASUREMENT_LIFE_S for it in known.measured.values()):
                    self._left[node] = known
                    if len(self._left) > self._most_machines:
                        del self._left[next(iter(self._left))]
        return gone

    def found(self, node: Address, field: Field, now_s: float) -> MachineMeasurement | None:
        """What counts of `field` of this machine: the newest word on it, with what stands between all words on it in place of its own.

        None where nobody's counts, or all have faded.
        """
        known = self._known.get(node) or self._left.get(node)
        if known is None:
            return None
        fresh = _fresh(known.measured.values(), now_s)
        between = _between(field, fresh, known.offer)
        if between is None:
            return None
        return msgspec.structs.replace([it for it in fresh if it.fields & field][-1], **between)

    def _signer(self, statement: MachineOffer | MachineMeasurement, signature: bytes) -> Address | None:
        try:
            return self._recover(signed_digest(statement, self._network), signature)
        except BadSignature:
            return None

    def _put(self, known: _Known, now_s: float) -> None:
        owner = self.belongs_to(Address(known.offer.operator), now_s)
        self.index.put(merged(known.offer, known.measured, now_s, owner), now_s)

    def _most(self, operator: Address) -> int:
        if self._stake_per_node_wei <= 0:
            return MOST_PER_OPERATOR
        return min(MOST_PER_OPERATOR, self._directory.stake(operator) // self._stake_per_node_wei)

    def _forget(self, node: Address) -> None:
        operator = Address(self._known.pop(node).offer.operator)
        machines = self._machines[operator]
        del machines[node]
        if not machines:
            del self._machines[operator]


def merged(
    offer: MachineOffer,
    measured: dict[Address, MachineMeasurement],
    now_s: float,
    belongs_to: Address | None = None,
) -> Offer:
    """The offer as placement sees it: of each field what lies between all that was measured, else the claim."""
    values: dict[str, Any] = {"reliability_ppm": NEWCOMER_RELIABILITY_PPM}
    values |= {name: getattr(offer, name) for name in _CLAIMED}
    fresh = _fresh(measured.values(), now_s)
    counts = 0
    for field, names in _MEASURED.items():
        if (between := _between(field, fresh, offer)) is None:
            continue
        counts |= field
        if field is Field.COORDINATE:
            values["coordinate"] = Coordinate(**between)
        elif field is not Field.PROFILE:
            values |= {name: between[name] for name in names}
    return Offer(
        node=Address(offer.node),
        operator=Address(offer.operator),
        price_wei=offer.price_wei,
        issued_s=min(offer.issued_s, int(now_s)),
        expires_s=offer.expires_s,
        # A clock that runs a little ahead mustn't make its measurement one from the future.
        measurements=tuple(
            Measurement(it.fields & counts, Address(it.validator), min(it.at_s, int(now_s))) for it in fresh
        ),
        belongs_to=belongs_to,
        **values,
    )


def _fresh(measured: Iterable[MachineMeasurement], now_s: float) -> list[MachineMeasurement]:
    """The newest last."""
    return sorted(
        (it for it in measured if it.at_s > now_s - MEASUREMENT_LIFE_S),
        key=lambda it: (it.at_s, it.validator),
    )


def _between(field: Field, fresh: Sequence[MachineMeasurement], offer: MachineOffer) -> dict[str, Any] | None:
    """What counts of this field, by name; None where too few found it.

    Who examined a machine and says nothing of a field found what was claimed, or nothing: a vote. Of reliability it is none, since who says nothing
    hasn't watched for long enough. A region is only ever the claimed one, found or not.
    """
    said = [
        it for it in fresh if it.fields & field and (field is not Field.REGION or it.region == offer.region)
    ]
    voters = len(said) if field is Field.RELIABILITY else len(fresh)
    if not said or 2 * len(said) < voters or len(said) < min(2, len(fresh)):
        return None
    names = _MEASURED[field]
    if field is Field.COORDINATE:
        return {name: getattr(_amid(said), name) for name in names}
    if field is Field.PROFILE:
        return {name: _middle([getattr(it, name) for it in said]) for name in names}
    return dict(zip(names, _middle([tuple(getattr(it, name) for name in names) for it in said]), strict=True))


def _middle(found: Sequence[Any]) -> Any:
    return sorted(found)[(len(found) - 1) // 2]


def _amid(said: Sequence[MachineMeasurement]) -> MachineMeasurement:
    """Whose place has the least way to all others': of three it is no further from either honest one than they are apart.

    Of two it is the higher, which is further from everyone.
    """
    return min(said, key=lambda it: (sum(_apart(it, other) for other in said), -it.height_us, it.validator))


def _apart(one: MachineMeasurement, two: MachineMeasurement) -> int:
    way = isqrt((one.x_us - two.x_us) ** 2 + (one.y_us - two.y_us) ** 2 + (one.z_us - two.z_us) ** 2)
    return way + abs(one.height_us - two.height_us)


_CLAIMED = (
    "hardware",
    "cpu_milli",
    "memory_bytes",
    "disk_bytes",
    "gpu",
    "gpus",
    "region",
    "bandwidth_kbps",
    "longest_s",
)
_MEASURED: dict[Field, tuple[str, ...]] = {
    Field.HARDWARE: ("hardware",),
    Field.CPU: ("cpu_milli",),
    Field.MEMORY: ("memory_bytes",),
    Field.GPU: ("gpu", "gpus"),
    Field.REGION: ("region",),
    Field.BANDWIDTH: ("bandwidth_kbps",),
    Field.RELIABILITY: ("reliability_ppm",),
    Field.COORDINATE: ("x_us", "y_us", "z_us", "height_us"),
    Field.PROFILE: ("links_per_s_milli", "links_at_once_per_s_milli", "cpu_milli"),
}
