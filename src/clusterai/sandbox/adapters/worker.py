"""The program that runs one WASM task, alone in its process and behind the native walls.

It reads `Ask` from the job's inputs and leaves a `Report`. A module that breaks out of wasmtime finds itself in the same
cell as any other tenant's program: no network, no keys, no other job.
"""

import os
import sys
import time
from pathlib import Path
from typing import Literal

from clusterai.protocol import canonical
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters.wasm import Segmented
from clusterai.sandbox.core.module import BadModule
from clusterai.sandbox.core.report import (
    FILES,
    MAX_SEGMENTS,
    MODULE,
    PREIMAGE,
    REPORT,
    STATES,
    TASK,
    Ask,
    Report,
)
from clusterai.sandbox.core.spec import Reason


def main() -> None:
    came, out = Path(os.environ["CLUSTERAI_IN"]), Path(os.environ["CLUSTERAI_OUT"])
    ask = canonical.decode((came / TASK).read_bytes(), Ask)
    inputs = {name: (came / f"i{place}").read_bytes() for place, name in enumerate(sorted(ask.task.inputs))}
    preimage = (came / PREIMAGE).read_bytes() if (came / PREIMAGE).exists() else None
    try:
        job = Segmented((came / MODULE).read_bytes(), ask.task, inputs, _print)
        if preimage is not None and not ask.keep:
            report = _again(job, preimage, ask)
        else:
            report = _run(job, preimage, out, ask)
    except (BadModule, canonical.Malformed) as error:
        if preimage is not None and isinstance(error, canonical.Malformed):
            # It is the state's fault, and neither the module's nor this machine's.
            report = Report(reason=Reason.TRAPPED, why=f"nothing goes on from this state: {error}"[:1000])
        else:
            report = Report(reason=Reason.REFUSED, why=f"the module can't be run: {error}"[:1000])
    (out / REPORT).write_bytes(canonical.encode(report))


def _print(stream: Literal["stdout", "stderr"], data: bytes) -> None:
    file = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
    file.write(data)
    file.flush()


def _run(job: Segmented, before: bytes | None, out: Path, ask: Ask) -> Report:
    states = out / STATES
    until_s = time.monotonic() + ask.for_ms / 1000
    kept = 0

    def keep(digest: Digest, preimage: bytes) -> None:
        nonlocal kept
        kept += len(preimage)
        (states / digest.hex()).write_bytes(preimage)

    def enough(segments: int) -> bool:
        if segments and ask.for_ms and time.monotonic() >= until_s:
            return True
        return bool(segments and ask.kept_bytes <= kept and ask.kept_bytes) or bool(
            ask.most and segments >= ask.most
        )

    if ask.keep:
        states.mkdir()
    digests, meter = (), ()
    if ask.begin:
        preimage = job.start()
        digest = content_digest(preimage)
        if ask.keep:
            keep(digest, preimage)
        return Report(reason=Reason.FINISHED, digests=(digest,))
    if ask.steps:
        part = job.part(ask.steps, keep if ask.keep else None, before, enough)
        digests, meter = part.digests, part.fuel
        if part.result is None:
            return Report(
                reason=Reason.FINISHED, digests=digests, meter=meter, fuel=part.burnt, unfinished=True
            )
        result = part.result
    else:
        result = job.execute()
    (out / FILES).mkdir()
    names = sorted(result.outputs)
    for place, name in enumerate(names):
        (out / FILES / f"f{place}").write_bytes(result.outputs[name])
    return Report(
        reason=result.reason,
        exit_code=result.exit_code,
        why=result.why[:1000],
        fuel=result.fuel,
        memory_bytes=result.memory_bytes,
        outputs=tuple(names),
        digests=digests,
        meter=meter,
    )


def _again(job: Segmented, preimage: bytes, ask: Ask) -> Report:
    if ask.points:
        found = job.at_units(preimage, ask.steps, ask.points, ask.burn)
        return Report(
            reason=Reason.FINISHED,
            digests=tuple(digest for digest, _ in found),
            meter=tuple(spent for _, spent in found),
            fuel=found[-1][1],
        )
    if ask.steps // max(1, ask.every) > MAX_SEGMENTS:
        raise canonical.Malformed(f"more than {MAX_SEGMENTS} digests at once")
    segments = job.trace(preimage, ask.steps, ask.every or ask.steps, ask.burn)
    return Report(
        reason=Reason.FINISHED,
        digests=tuple(segment.digest for segment in segments),
        meter=tuple(segment.fuel for segment in segments),
        fuel=sum(segment.fuel for segment in segments),
        ended=segments[-1].ended,
    )
