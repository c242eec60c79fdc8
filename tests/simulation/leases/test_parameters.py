"""The desk plans by the audit rules that the chain has, not by those that its manifest had."""

import msgspec
import pytest

from clusterai.gateway.core.jobdesk import JobDesk
from clusterai.gateway.core.jobstate import DeskTerms
from clusterai.ledger.core import events
from clusterai.ledger.core.lease_events import AuditParameters
from clusterai.ledger.core.rules import AuditRules
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address
from clusterai.protocol.jobs import Lends
from clusterai.runtime.machine import Linked, Received, Started
from clusterai.work.batch.core.plan import Offer
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import Image, JobArray, JobSpec
from tests.simulation.leases.world import LEASES

ANN = Address(b"\x01" * 20)
SPEC = JobSpec(name="sums", check="wasm", image=Image("wasm", b"\x07" * 32), segments=100, fuel=10**9)
STRICT = AuditParameters(*msgspec.structs.astuple(AuditRules(saving_ppm=1_000_000, margin_ppm=900_000)))
LAX = AuditParameters(*msgspec.structs.astuple(AuditRules(saving_ppm=1, margin_ppm=0)))


def desk() -> JobDesk:
    """With one provider of some stake and a long history, so that its rate is what the rules make it."""
    found = JobDesk(DeskTerms(ANN, LEASES, ZERO_ADDRESS, 10), Directory(), lambda _: 10**6)
    for event in (
        events.Registered(ANN, 1, ZERO_DIGEST),
        events.Bonded(ANN, 10**6, 10**6),
        events.Block(1, 1_700_000_000),
        Started(),
        Linked(ANN),
        Received(ANN, Lends("batch", canonical.encode(Offer(provider="")), 0, 0)),
    ):
        found.step(event, 0)
    return found


def rate(found: JobDesk) -> int:
    (one,) = found.placing.plan(JobArray(SPEC), Wishes()).candidates
    return one.audit_rate_ppm


def test_a_plan_follows_what_the_governor_sets() -> None:
    """Stricter rules raise the planned rate at once, laxer ones lower it, and the newest hold."""
    it = desk()
    first = rate(it)
    it.step(events.AuditParametersSet(STRICT), 0)
    strict = rate(it)
    it.step(events.AuditParametersSet(LAX), 0)
    assert rate(it) < first < strict


@pytest.mark.parametrize(("gone_above", "which"), [(5, LAX), (4, STRICT), (2, STRICT), (1, None)])
def test_what_undone_blocks_set_is_undone(gone_above: int, which: AuditParameters | None) -> None:
    """The rules are again those of the newest block that stands."""
    it = desk()
    first = rate(it)
    it.step(events.AuditParametersSet(STRICT), 0)
    for number in (2, 3, 4):
        it.step(events.Block(number, 1_700_000_000 + number), 0)
    it.step(events.AuditParametersSet(LAX), 0)
    it.step(events.Block(5, 1_700_000_005), 0)
    it.step(events.RolledBack(gone_above), 0)
    other = desk()
    if which is not None:
        other.step(events.AuditParametersSet(which), 0)
    assert rate(it) == (first if which is None else rate(other))
