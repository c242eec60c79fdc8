"""What a provider owes once it committed: the outputs of its last state, whole.

The committed output has to be the listing that follows from h_T. One thing doesn't: what a module printed. Its state holds a chain of
hashes over the printing, call by call, of which the bytes can't be told apart; so the file `stdout` of a module is handed over
and held to its digest like the others, but nothing shows that it is what was printed.
"""

from clusterai.work.batch.core.pinned import MOST_OUTPUT_BYTES, STDOUT
from clusterai.work.batch.core.tree import Tree
from clusterai.work.batch.spec import GIB, JobSpec

MOST_DELIVERED_BYTES = GIB + MOST_OUTPUT_BYTES
"""Of one job's outputs are what a member of the panel takes to see whether they can be had: all of a job with the disk that a job has
unless it asks for another. Of larger outputs the panel sees only whether they are listed as the last state gives them.

64 members that take so much in an hour are 20 MB/s for the provider: a network's `deliver_s` has to leave time for that."""


def most_output_bytes(spec: JobSpec) -> int:
    """More than that no run of the job can leave."""
    return spec.resources.disk_bytes + MOST_OUTPUT_BYTES


def is_owed(given: Tree, listed: Tree, prints: bool) -> bool:
    """Whether a listing is what the last state gives.

    Args:
        given: by the last state.
        listed: what was committed to.
        prints: a module's `stdout` is kept.
    """
    if given == listed:
        return True
    if not prints or any(it.path == STDOUT for it in given.entries):
        return False
    rest = tuple(it for it in listed.entries if it.path != STDOUT or it.form != "file")
    return len(rest) + 1 == len(listed.entries) and rest == given.entries
