"""What each rented machine gives the tenant's processes, from the flags of a command line."""

from collections.abc import Sequence

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.sdk.offershapes import PlanRequest
from clusterai.sdk.rentalshapes import Setup

LEAST_CPU_MILLI = 1_000
LEAST_MEMORY = 512 << 20


def setup_of(request: PlanRequest, env: Sequence[str]) -> Setup:
    """As much of each machine as was asked for of it.

    Raises:
        Failure: exit code 2, with the flag and how to write it.
    """
    need = request.need
    if need.cpu_milli < LEAST_CPU_MILLI:
        raise Failure("Ray needs a core of each machine", "", "--cpu 1, or more", Exit.USAGE)
    if need.memory_bytes < LEAST_MEMORY:
        raise Failure("Ray needs 512 MiB of each machine", "", "--mem 512MB, or more", Exit.USAGE)
    fields: dict[str, object] = {
        "cpu_milli": need.cpu_milli,
        "memory_bytes": need.memory_bytes,
        "disk_bytes": need.disk_bytes,
        "gpus": need.gpus,
        "env": _variables(env),
    }
    try:
        return msgspec.convert(fields, Setup)
    except msgspec.ValidationError as error:
        raise Failure("no machine is set up so", str(error), "clusterai rent --help", Exit.USAGE) from None


def _variables(env: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in env:
        name, given, value = text.partition("=")
        if not given or not name.isidentifier() or not name.isascii() or len(name) > 128 or len(value) > 4096:
            raise Failure(f"--env {text[:60]} isn't understood", "", "write it as NAME=VALUE", Exit.USAGE)
        found[name] = value
    return found
