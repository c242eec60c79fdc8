"""A native job as segments: what each is given, and what the state after it is.

    state i  = Checkpoint(job, i, units, exit code, listing of the work folder)          h_i = BLAKE3 of its canonical bytes
    segment  = the program, started anew in a fresh sandbox on the work folder of state i - 1

Exit code 75 asks for the next segment; any other ends the job. A segment is one unit: whoever claims more units must
claim more states, and each of those can be drawn.
"""

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox.core.spec import Container, Image, Limits, Outcome, Reason, RootFs, Task
from clusterai.work.batch.core.tree import Entry, Tree, checked_path, listing, overlay
from clusterai.work.batch.spec import AGAIN, MOST_SEGMENTS, JobSpec
from clusterai.work.request import within

BEGUN = -1
"""The exit code of a program that hasn't run."""
SLACK = 4
"""A segment may take so many times its equal share of the job's time where it is unverified, or run again: shares are never quite
equal, nor machines. Without the bound a requester could put all work into the first of a thousand segments and pay for one, and a cheat
commit to states from which nobody comes on."""
MOST_SEGMENT_S = 30 * 86_400
MOST_FILES = 10_000
MOST_OUTPUT_BYTES = 64 * 1024 * 1024
STDOUT = "stdout"

ENTER = """set -e
umask 022
cd "$CLUSTERAI_OUT"
for part in x w; do
  if [ -d "$CLUSTERAI_IN/$part" ]; then
    cp -R "$CLUSTERAI_IN/$part/." .
    if [ $part = x ]; then chmod -R u+rwx .; else chmod -R u+rw .; fi
  fi
done
exec "$@"
"""
"""A sandbox shows inputs read-only and takes what is left in another folder: the work folder is copied across, programs first,
since only they keep the right to be executed."""

Program = tuple[str, ...]


class Checkpoint(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="checkpoint.1"
):
    """The state of a native job between two segments.

    Attributes:
        job: the work digest J, which names everything that the rest depends on.
        segment: how many are done.
        units: metered so far; covered by the digest, so that a meter can't run ahead of the work.
        exit_code: of the last; 75 asks for more, -1 before the first.
        tree: digest of the work folder's listing.
    """

    job: bytes
    segment: int
    units: int
    exit_code: int
    tree: bytes

    def __post_init__(self) -> None:
        within("length of job digest", len(self.job), 32, 32)
        within("length of tree digest", len(self.tree), 32, 32)
        within("segment", self.segment, 0, MOST_SEGMENTS)
        within("units", self.units, self.segment, self.segment)
        within("exit_code", self.exit_code, BEGUN, 255)

    @property
    def has_ended(self) -> bool:
        return self.exit_code not in (BEGUN, AGAIN)

    def canonical(self) -> bytes:
        return canonical.encode(self)

    def digest(self) -> Digest:
        return canonical.digest(self)


def decode_checkpoint(raw: bytes) -> Checkpoint:
    """
    Raises:
        canonical.Malformed: not a checkpoint.
    """
    return canonical.decode(raw, Checkpoint, 4096)


def begin(spec: JobSpec, inputs: list[Tree]) -> tuple[Checkpoint, Tree]:
    """State 0: the inputs laid over each other."""
    tree = overlay(inputs)
    return Checkpoint(spec.digest(), 0, 0, BEGUN, tree.digest()), tree


def segment_s(spec: JobSpec) -> int:
    """The longest that one segment may take where it isn't a pinned job's provider who runs it; of an unverified job, no more than
    the whole."""
    most_s = MOST_SEGMENT_S if spec.check == "pinned" else spec.resources.time_s
    return min(most_s, -(-SLACK * spec.resources.time_s // spec.segments))


def share_s(spec: JobSpec) -> int:
    """The longest that one segment of a pinned job may take its provider, `setup` included.

    Each segment is drawn with the same chance, whatever it takes. So none may be worth more than its share of the price, which is for
    `time_s`: who makes up k of T segments then saves at most k / T of what the price is for, and is drawn there with k p / T.
    """
    return -(-spec.resources.time_s // spec.segments)


def task(
    spec: JobSpec, segment: int, tree: Tree, program: Program, inside: dict[str, Digest], wall_s: int
) -> Task:
    """What the sandbox runs.

    Args:
        segment: from 1.
        program: the spec's `argv`, or its `setup`.
        inside: helper modules by file name, shown beside the inputs.
        wall_s: the longest that it may take.
    """
    wants = spec.resources
    inputs = {
        f"{'x' if entry.form == 'program' else 'w'}/{entry.path}": Digest(entry.digest)
        for entry in tree.entries
    }
    return Task(
        image=_image(spec),
        argv=("/bin/sh", "-c", ENTER, "job", *program),
        env=environment(spec, segment),
        inputs={**inputs, **{f"lib/{name}": digest for name, digest in inside.items()}},
        network=spec.network,
        limits=Limits(
            memory_bytes=wants.memory_bytes,
            cpu_milli=wants.cpu_milli,
            processes=wants.processes,
            disk_bytes=wants.disk_bytes,
            files=MOST_FILES,
            wall_s=wall_s,
            cpu_s=max(1, -(-wall_s * wants.cpu_milli // 1000)),
            open_files=1024,
            output_bytes=MOST_OUTPUT_BYTES,
        ),
        seed=spec.seed,
        clock_s=spec.clock_s,
    )


def environment(spec: JobSpec, segment: int) -> dict[str, str]:
    """All variables; the same for provider and auditor."""
    found = {
        "CLUSTERAI_SEGMENT": str(segment),
        "CLUSTERAI_SEGMENTS": str(spec.segments),
        "CLUSTERAI_SEED": str(spec.seed),
        "PYTHONPATH": "/job/in/lib",
        # Compiled files hold times.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if spec.check == "pinned":
        # Sums in another order are other sums: one thread, whatever the machine has.
        one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB", "BLIS")}
        found |= one
        found |= {
            "CLUSTERAI_CLOCK_S": str(spec.clock_s),
            "SOURCE_DATE_EPOCH": str(spec.clock_s),
            "PYTHONHASHSEED": str(spec.seed % 2**32),
            "TZ": "UTC",
        }
    own = dict(spec.env)
    if "PYTHONPATH" in own:
        own["PYTHONPATH"] = f"{found['PYTHONPATH']}:{own['PYTHONPATH']}"
    return found | own


def left(before: Tree, outcome: Outcome, stdout: tuple[Digest, int] | None) -> tuple[Tree, tuple[str, ...]]:
    """The work folder as a segment left it, and what of it can't be kept.

    What was a program stays one: the sandbox doesn't tell modes, and a rule that depends on the state before alone is the
    same for everybody.

    Args:
        stdout: content that becomes the file `stdout`, where the spec keeps it.

    Raises:
        OutOfRange: more files than a state may have.
    """
    programs = before.programs()
    found: list[Entry] = []
    lost = list(outcome.skipped)
    for output in outcome.outputs:
        if stdout is not None and output.name == STDOUT:
            continue
        try:
            checked_path(output.name)
        except ValueError:
            lost.append(output.name)
            continue
        form = "program" if output.name in programs else "file"
        found.append(Entry(output.name, form, output.digest, output.size))
    if stdout is not None:
        found.append(Entry(STDOUT, "file", *stdout))
    return listing(found), tuple(lost)


def after(before: Checkpoint, outcome: Outcome, tree: Tree) -> Checkpoint | None:
    """The state after a segment; None where it isn't done: killed for a limit, cancelled, refused. Where a limit is met differs
    from machine to machine, so no state can be agreed on."""
    if outcome.reason not in (Reason.FINISHED, Reason.FAILED) or not 0 <= outcome.exit_code <= 128:
        return None
    return Checkpoint(before.job, before.segment + 1, before.units + 1, outcome.exit_code, tree.digest())


def _image(spec: JobSpec) -> Image:
    match spec.image.form:
        case "base":
            return RootFs(spec.image.name)
        case "tar":
            return RootFs(f"blake3:{spec.image.digest.hex()}")
        case "oci":
            return Container(f"sha256:{spec.image.digest.hex()}")
        case "wasm":
            raise AssertionError("a module isn't a native program")
