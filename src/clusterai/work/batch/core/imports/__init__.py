"""Job files of others, read as ours where they say the same thing; what can't be honoured is named, never dropped.

    SkyPilot   task YAML: `resources, num_nodes, workdir, envs, file_mounts, setup, run`
    dstack     `type: task`: `commands, env, files, image, resources, max_duration, max_price, retry`
    Akash      SDL: one service, its compute profile, its deployment

Three answers are possible for a field: it is honoured; it is *unhonoured* (`Request.unhonoured`: the job runs without, and
the plan says so); or the job would be another one without it, and that is an error. A field that none of these formats has is
an error too: most likely it is a slip.
"""

import msgspec

from clusterai.work.batch.core.imports.akash import akash
from clusterai.work.batch.core.imports.dstack import dstack
from clusterai.work.batch.core.imports.skypilot import looks_like, skypilot
from clusterai.work.batch.core.jobfile import job
from clusterai.work.batch.core.located import BadFile, read
from clusterai.work.batch.core.request import Request


def parse(text: str) -> Request:
    """Any of the four formats, told apart by what only it has.

    Raises:
        BadFile: naming line, value, reason and cure.
    """
    value = read(text)
    table = value.table()
    if "services" in table and ("profiles" in table or "deployment" in table):
        return akash(value)
    if "type" in table:
        return dstack(value)
    if "num_nodes" in table or looks_like(table):
        return skypilot(value)
    return job(value)


_GPU_COUNTS = frozenset(
    (
        *("SKYPILOT_NUM_GPUS_PER_NODE", "SKYPILOT_SETUP_NUM_GPUS_PER_NODE"),
        *("DSTACK_GPUS_NUM", "DSTACK_GPUS_PER_NODE"),
    )
)


def recounted(request: Request, before: int) -> Request:
    """With other GPUs than the file asked for: what its format tells the program of them follows, if it said `before`."""
    env = tuple(
        (name, str(request.resources.gpus) if name in _GPU_COUNTS and text == str(before) else text)
        for name, text in request.env
    )
    return msgspec.structs.replace(request, env=env)


__all__ = ["BadFile", "parse", "recounted"]
