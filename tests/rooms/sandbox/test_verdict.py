"""The reason of an end: what the host did, then what the kernel counted, then what the program said."""

import pytest

from clusterai.sandbox.core.spec import Limits, Reason
from clusterai.sandbox.core.verdict import Sight, exceeded, explain, judge

LIMITS = Limits(
    memory_bytes=1 << 24, processes=4, disk_bytes=1 << 16, wall_s=2, cpu_s=1, output_bytes=100, files=5
)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Sight(), None),
        (Sight(memory_bytes=1 << 24), None),
        (Sight(memory_bytes=(1 << 24) + 1), Reason.OUT_OF_MEMORY),
        (Sight(oom_kills=1), Reason.OUT_OF_MEMORY),
        (Sight(refused_forks=1), Reason.TOO_MANY_PROCESSES),
        (Sight(processes=5), Reason.TOO_MANY_PROCESSES),
        (Sight(output_bytes=101), Reason.TOO_MUCH_OUTPUT),
        (Sight(files=6), Reason.OUT_OF_DISK),
        (Sight(cpu_ms=1000), Reason.OUT_OF_CPU),
        (Sight(wall_ms=2000), Reason.OUT_OF_TIME),
        (Sight(disk_free_bytes=0), None),
    ],
)
def test_the_limit_that_is_met_is_the_reason(seen: Sight, reason: Reason | None) -> None:
    """Each count has one reason; a full volume alone ends nothing."""
    assert exceeded(seen, LIMITS) == reason


@pytest.mark.parametrize(
    ("last", "code", "killed_for", "reason"),
    [
        (Sight(), 0, None, Reason.FINISHED),
        (Sight(), 3, None, Reason.FAILED),
        (Sight(), 137, None, Reason.FAILED),
        (Sight(), 137, Reason.LEASE_ENDED, Reason.LEASE_ENDED),
        (Sight(oom_kills=1), 137, None, Reason.OUT_OF_MEMORY),
        (Sight(oom_kills=1), 0, None, Reason.OUT_OF_MEMORY),
        (Sight(disk_free_bytes=0), 1, None, Reason.OUT_OF_DISK),
        (Sight(disk_free_bytes=0), 0, None, Reason.FINISHED),
        (Sight(wall_ms=2001), 0, None, Reason.FINISHED),
        (Sight(wall_ms=2001), 1, None, Reason.OUT_OF_TIME),
        (Sight(output_bytes=101), 0, None, Reason.TOO_MUCH_OUTPUT),
    ],
)
def test_the_reason_is_the_true_one(
    last: Sight, code: int, killed_for: Reason | None, reason: Reason
) -> None:
    """A program killed for its memory did not "fail with 137", and one that ended in time was not late."""
    assert judge(last, LIMITS, code, killed_for) == reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason) -> None:
    """Each end but a good one, and those explained where they arise, has a sentence."""
    assert bool(explain(reason, LIMITS, 137)) is (
        reason not in (Reason.FINISHED, Reason.TRAPPED, Reason.REFUSED)
    )
