"""For a job written in Python; `import clusterai_job` inside a job, or copy this file beside your program.

Everything it does is a few lines in any language: a segment is one run of the program, exit code 75 says "what lies in the
work folder is a checkpoint, run me again", and CLUSTERAI_SEGMENT counts the runs from 1.

    import clusterai_job as job

    total = int(Path("total").read_text()) if job.SEGMENT > 1 else 0
    for n in job.share(1_000_000):
        total += n
    Path("total").write_text(str(total))
    job.checkpoint()                    # ends this run; goes on here in the last one
"""

import os
import sys

SEGMENT = int(os.environ.get("CLUSTERAI_SEGMENT", "1"))
"""Which run of the program this is, from 1."""
SEGMENTS = int(os.environ.get("CLUSTERAI_SEGMENTS", "1"))
"""How many there will be."""
SEED = int(os.environ.get("CLUSTERAI_SEED", "0"))
TASK = int(os.environ.get("CLUSTERAI_TASK", "0"))
"""Which task of an array this is, from 0."""
TASKS = int(os.environ.get("CLUSTERAI_TASKS", "1"))


def share(total: int) -> range:
    """Those of `total` items that belong to this segment; equal shares, in order."""
    return range(total * (SEGMENT - 1) // SEGMENTS, total * SEGMENT // SEGMENTS)


def checkpoint() -> None:
    """All that the rest of the job needs lies in the work folder. In the last segment nothing happens."""
    if SEGMENT < SEGMENTS:
        sys.exit(75)
