"""Which jobs the desk forgets: those that ended long ago, and the oldest of whoever keeps most when they are too many.

None that anything hangs on: a job is free when every lease it ever had is closed on chain and paid from its tab, and the tab is closed.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from clusterai.gateway.core.jobstate import Job
from clusterai.protocol.ids import Digest


def doomed(
    jobs: Iterable[Job], unpaid: Collection[Digest], now_s: float, keep_s: int, most: int
) -> list[Job]:
    """Jobs to forget, the oldest first.

    Args:
        unpaid: jobs that a lease's cost is still charged to.
        keep_s: so long after its end a job is kept, as long as there is room.
        most: of ended jobs. Beyond it the account that has most of them loses its oldest, so that nobody can crowd out others.
    """
    free = sorted(
        (job for job in jobs if is_free(job) and job.id not in unpaid), key=lambda job: (job.ended_s, job.id)
    )
    gone = [job for job in free if _ended(job) + keep_s <= now_s]
    kept: dict[Digest, list[Job]] = {}
    for job in free[len(gone) :][::-1]:
        kept.setdefault(job.account, []).append(job)
    count = Counter({account: len(theirs) for account, theirs in kept.items()})
    for _ in range(count.total() - most):
        account = max(sorted(count), key=count.__getitem__)
        gone.append(kept[account].pop())
        count[account] -= 1
    return gone


def is_free(job: Job) -> bool:
    """Whether no money hangs on it: it ended, its tab was told so, and none of its leases is open."""
    return (
        job.ended
        and job.ended_s is not None
        and all(slot.lease is None or slot.closed is not None for slot in job.slots)
    )


def _ended(job: Job) -> int:
    assert job.ended_s is not None, "only what ended is free"
    return job.ended_s
