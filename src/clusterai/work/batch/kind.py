"""Batch jobs as a kind of leased work: how a stranger's terms are held against the spec that comes with them."""

from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.leases import Terms
from clusterai.work.batch.core.prices import billable_wei
from clusterai.work.batch.spec import DETERMINISM, JobSpec, decode_spec
from clusterai.work.leased import LeasedKind


def differs(spec: JobSpec, terms: Terms) -> str | None:
    """Why these terms aren't of this job; None where they are."""
    if terms.spec != spec.digest():
        return "the lease names another job"
    if terms.resources != spec.resources_digest():
        return "the lease names other resources"
    if terms.input != spec.input_root():
        return "the lease names another input"
    if terms.expected != (spec.expected or ZERO_DIGEST):
        return "the lease expects another output"
    if terms.determinism != DETERMINISM[spec.check]:
        return f"the lease is of class {terms.determinism}, and the job is {spec.check}"
    if terms.segments != spec.segments:
        return f"the lease has {terms.segments} segments, and the job {spec.segments}"
    if terms.units != spec.units():
        return f"the lease is over {terms.units} units, and the job has {spec.units()}"
    return None


BATCH = LeasedKind(name="batch", decode=decode_spec, differs=differs, billable_wei=billable_wei)
