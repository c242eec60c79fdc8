"""Who could take a lease now, at what price, and the terms under which the desk offers it to the cheapest."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from clusterai.audit.core.segments import MILLION, RateRules, bait_ppm
from clusterai.gateway.core.jobstate import DeskTerms, Job, Slot
from clusterai.ledger.core import events
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST, Address, Role, hex0x
from clusterai.protocol.jobs import Lends
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import Terms
from clusterai.sdk.jobshapes import Plan
from clusterai.work.batch.core.plan import Offer, assign, candidate, plan, refusals
from clusterai.work.batch.core.prices import audit_fee_wei, total_wei
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import DETERMINISM, JobArray, JobSpec

KIND = "batch"
START_BY_S = 60
"""A provider has so long to accept."""
SPARE_S = 300
"""The deadline on chain lies so far behind the longest that the job may take."""
MOST_OFFER_BYTES = 65_536


class Placing:
    """What linked providers lend, and what the chain says of each instead of what it says of itself."""

    def __init__(self, terms: DeskTerms, directory: Directory, rows: Callable[[Address], int]) -> None:
        self.offers: dict[Address, tuple[Offer, int, int]] = {}
        self.linked: dict[Address, None] = {}
        self._terms = terms
        self._set: list[tuple[int, RateRules, int]] = [(-1, terms.rules, terms.bond_ppm)]
        """audit rules and an auditor's bond, with the blocks that set them: the manifest's until the chain says otherwise"""
        self._directory = directory
        self._rows = rows

    # --- how it is audited ---

    @property
    def rules(self) -> RateRules:
        """As the chain has them now: what is planned is drawn by these, unless they change before its commitment."""
        return self._set[-1][1]

    def follow(self, event: events.AuditParametersSet | events.RolledBack, block: int) -> None:
        """The governor changed how leases are audited, in `block`; or blocks are gone, and what they changed with them."""
        match event:
            case events.AuditParametersSet(given):
                rules = RateRules(
                    given.saving_ppm, given.sensitivity_ppm, given.corrupt_ppm, given.margin_ppm
                )
                self._set.append((block, rules, given.bond_ppm))
            case events.RolledBack(number):
                while self._set[-1][0] > number:
                    self._set.pop()

    def bait_ppm(self, terms: Terms, segments: int) -> int:
        """Beside so many of a million leases like this one bait makes copying a loss for the member of the panel with the least to lose."""
        _, rules, bond_ppm = self._set[-1]
        known = self._directory
        bond_wei = known.stake(Address(terms.provider)) * bond_ppm // MILLION
        stake_wei = min(map(known.stake, known.holders(Role.VALIDATOR)), default=0)
        return bait_ppm(rules, terms.compensation_wei, segments, terms.audit_fee_wei + bond_wei + stake_wei)

    # --- what is lent ---

    def unlinked(self, peer: Address) -> None:
        self.linked.pop(peer, None)
        self.offers.pop(peer, None)

    def lends(self, sender: Address, frame: Lends) -> None:
        if frame.kind != KIND:
            return
        try:
            offer = canonical.decode(frame.offer, Offer, MOST_OFFER_BYTES)
        except Malformed:
            self.offers.pop(sender, None)
            return
        self.offers[sender] = (offer, frame.running, frame.queued)

    def known_offers(self) -> list[Offer]:
        """Those of linked providers."""
        found: list[Offer] = []
        for provider, (offer, running, queued) in self.offers.items():
            found.append(
                msgspec.structs.replace(
                    offer,
                    provider=hex0x(provider),
                    stake_wei=self._directory.stake(provider),
                    barred=self._directory.barred(provider),
                    valid_in_a_row=self._rows(provider),
                    queue=queued,
                    linked=provider in self.linked,
                    takes_more=running + queued < 64,
                )
            )
        return found

    def standing(self, provider: Address) -> dict[str, Any] | None:
        """How its price of a core's hour stands among all that lend now, for its owner: the cheapest able one is taken.
        None where it lends nothing."""
        offers = {it.provider: it for it in self.known_offers() if it.linked and not it.barred}
        mine = offers.get(hex0x(provider))
        if mine is None:
            return None
        prices = [it.tariff.core_hour_wei for it in offers.values()]
        price = mine.tariff.core_hour_wei
        below = [it for it in prices if it < price]
        return {
            "core_hour_wei": price,
            "place": 1 + len(below),
            "of": len(prices),
            "cheapest_wei": min(prices),
            "next_wei": max(below, default=None),
            "checks": list(mine.checks),
            "forms": list(mine.forms),
            "least_stake_wei": self._terms.least_stake_wei,
            "queue": mine.queue,
        }

    # --- who gets it ---

    def plan(self, array: JobArray, wishes: Wishes) -> Plan:
        """What would happen now."""
        return plan(array, wishes, self.known_offers(), self.rules, self._terms.least_stake_wei)

    @staticmethod
    def dearest(array: JobArray, wishes: Wishes, found: Plan) -> int | None:
        """What is held: each lease may end up with the dearest that could take it, within the requester's own bound."""
        leases = len(array) * wishes.replicas
        if wishes.max_price_wei is not None:
            return wishes.max_price_wei * leases
        whole = [one.total_wei + one.audit_fee_wei for one in found.candidates]
        return max(whole) * leases if whole else None

    def terms(self, job: Job, number: int, offers: Sequence[Offer], now_s: int) -> Terms | None:
        """For the cheapest provider that hasn't failed this slot, no two replicas of a task at one; None where nobody can."""
        slot = job.slots[number]
        spec = job.array.task(slot.task)
        taken = {
            Address(other.terms.provider)
            for other in job.slots
            if other.task == slot.task
            and other is not slot
            and other.terms is not None
            and other.over is None
        }
        excluded = {hex0x(it) for it in (*taken, *slot.refused_by)}
        able = [
            (offer, total_wei(offer.tariff, spec))
            for offer in offers
            if offer.provider not in excluded
            and not refusals(offer, spec, job.wishes, self._terms.least_stake_wei)
        ]
        able.sort(key=lambda pair: (pair[1], -pair[0].stake_wei, pair[0].provider))
        chosen = assign(able, spec, 1, 1)
        if not chosen:
            return None
        offer = next(offer for offer, _ in able if offer.provider == chosen[0])
        return self._terms_for(job, number, slot, spec, offer, now_s)

    def _terms_for(self, job: Job, number: int, slot: Slot, spec: JobSpec, offer: Offer, now_s: int) -> Terms:
        one = candidate(offer, spec, self.rules)
        now = max(now_s, self._directory.time_s)
        patience = job.wishes.deadline_s or (spec.resources.time_s + offer.queue_s + SPARE_S)
        nonce = keccak(job.id + number.to_bytes(4) + slot.attempt.to_bytes(4) + now.to_bytes(8))
        return Terms(
            requester=self._terms.me,
            provider=bytes.fromhex(offer.provider[2:]),
            spec=spec.digest(),
            resources=spec.resources_digest(),
            input=spec.input_root(),
            expected=spec.expected or ZERO_DIGEST,
            determinism=DETERMINISM[spec.check],
            segments=spec.segments,
            units=spec.units(),
            compensation_wei=one.total_wei,
            audit_fee_wei=audit_fee_wei(spec, one.total_wei),
            start_by_s=now + START_BY_S,
            deadline_s=now + START_BY_S + patience,
            nonce=nonce,
        )
