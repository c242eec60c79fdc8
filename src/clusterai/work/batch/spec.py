"""What is asked for: a job, whole, in integers and digests only.

The canonical bytes of a `JobSpec` are what a lease names, a provider performs and an auditor performs again. All that
the result may depend on is in here (image, program, environment, inputs, seed, clock), and nothing else may
influence it; so a spec is public, and a secret has no place in it.

A job's work folder is its only state. It begins as the inputs laid over each other, a segment changes it, and the
digest of its listing (`core.tree`) after segment i is h_i. For a pinned job **a segment is a process**: the program
is started anew for each, and says by exit code 75 that it has left a checkpoint and wants to be called again. What
it only kept in memory is gone, for the provider just as for the auditor, so forgetting to save something can't make an
honest provider look like a cheat.
"""

import re
from typing import Literal

import msgspec
from blake3 import blake3

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.leases import DeterminismClass
from clusterai.work.batch.core.tree import MOST_ENTRIES, BadPath, checked_path
from clusterai.work.request import OutOfRange, within

MOST_SEED = 2**63 - 1
MOST_CLOCK_S = 2**33 - 1
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4
DAY_S = 86_400

MOST_SPEC_BYTES = 512 * 1024
MOST_NAME = 64
MOST_ARGUMENTS = 256
MOST_ARGUMENT_BYTES = 128 * 1024
MOST_VARIABLES = 128
MOST_VARIABLE_BYTES = 32 * 1024
MOST_ROOTS = 8
MOST_OUTPUTS = 64
MOST_SEGMENTS = 1024
MOST_FUEL = 2**62
MOST_STEPS = 2**40
MOST_TASKS = 10_000
MOST_REPLICAS = 16
MOST_RETRIES = 10

AGAIN = 75
"""The exit code that says: a checkpoint lies here, call me again. sysexits.h calls it EX_TEMPFAIL."""

Check = Literal["wasm", "pinned", "unverified"]
"""How a result can be checked.

`wasm`: bit by bit on any machine; paid by fuel, which is counted. `pinned`: bit by bit where the same image runs with
the same seed and clock; the job promises to be deterministic. `unverified`: nobody can check it, it is labelled and priced
so, and never called verified.
"""

DETERMINISM: dict[Check, DeterminismClass] = {
    "unverified": DeterminismClass.UNVERIFIED,
    "wasm": DeterminismClass.WASM,
    "pinned": DeterminismClass.PINNED,
}
"""Each by its number in a lease's terms."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(
    r"(^|_)(SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?|MNEMONIC)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"sk-[A-Za-z0-9-]{20,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY"
)


class Unfit(ValueError):
    """This can't be a job: {field} {why}."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field} {why}")
        self.field = field
        self.why = why


class SecretInSpec(Unfit):
    """A spec is read by the gateway, the provider and any auditor; take the secret out of it."""


class Resources(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the job is promised and held to: it gets this much, and not more.

    Attributes:
        cpu_milli: thousandths of a core.
        time_s: for all segments together; the price is for this much, whatever less it takes.
        processes: processes and threads at once.
        gpu: the GPU's model as its maker writes it, such as `H100`; empty for any.
    """

    cpu_milli: int = 1000
    memory_bytes: int = GIB
    disk_bytes: int = GIB
    time_s: int = 3600
    processes: int = 64
    gpus: int = 0
    gpu: str = ""

    def __post_init__(self) -> None:
        within("cpu_milli", self.cpu_milli, 100, 1_024_000)
        within("memory_bytes", self.memory_bytes, 16 * MIB, 4 * TIB)
        within("disk_bytes", self.disk_bytes, MIB, 16 * TIB)
        within("time_s", self.time_s, 1, 30 * DAY_S)
        within("processes", self.processes, 1, 32_768)
        within("gpus", self.gpus, 0, 64)
        within("length of gpu", len(self.gpu), 0, 64)
        if self.gpu and not self.gpus:
            raise Unfit("gpu", "is named, and gpus is 0; ask for at least one, or for none by no name")
        if not self.gpu.isascii() or not self.gpu.isprintable():
            raise Unfit("gpu", "must be printable ASCII")


class Image(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the program runs in, by its content.

    Attributes:
        form: `wasm`, the module is the program; `base`, a root file system that the provider offers by `name` (digest of
            its description, or zeros for any, which only an unverified job can accept); `tar`, a root file system as a tar
            by its BLAKE3; `oci`, a container image by its sha256.
        name: of a base, such as `python`; of an `oci` image the repository that it is found in.
    """

    form: Literal["wasm", "base", "tar", "oci"]
    digest: bytes = ZERO_DIGEST
    name: str = ""

    def __post_init__(self) -> None:
        within("length of image digest in bytes", len(self.digest), 32, 32)
        within("length of image name", len(self.name), 1 if self.form in ("base", "oci") else 0, 255)
        if not self.name.isascii() or not self.name.isprintable() or " " in self.name:
            raise Unfit("image name", "must be printable ASCII without spaces")
        if self.form != "base" and self.digest == ZERO_DIGEST:
            raise Unfit("image", "has no digest; name its content, not a tag that may move")


class Root(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tree of input files: the digest of its listing (`core.tree.Tree`), and how much it is."""

    digest: bytes
    files: int
    size: int

    def __post_init__(self) -> None:
        within("length of input digest in bytes", len(self.digest), 32, 32)
        within("number of input files", self.files, 0, MOST_ENTRIES)
        within("size of inputs in bytes", self.size, 0, 16 * TIB)


class JobSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="job.1"):
    """One job.

    Attributes:
        name: for people: lower or upper case, digits, `.`, `_`, `-`.
        argv: program and arguments; of a WASM job the arguments alone.
        setup: argv of what runs in the work folder before the first segment; what it leaves there is state.
        env: sorted by name. Names that begin with CLUSTERAI_ are the runner's.
        inputs: laid over each other in order in the work folder, where the program starts.
        outputs: files and folders of the work folder, sorted; none means all that is new or changed.
        stdout: what the program prints is the file `stdout` of the work folder, and so part of what is verified. Else
            it is a log, which nobody vouches for.
        network: may open connections. Only an unverified job may: what it is told can't be told again.
        seed: the only randomness there is.
        clock_s: what the clock says when a segment starts.
        segments: T, the most segments. A job that isn't done after so many has failed.
        steps: of a WASM module in a segment; 1 for others, whose segment is one call of the program.
        fuel: the most units a WASM job may use; 0 for others.
        expected: the digest that the outputs' listing must have, or none.
    """

    name: str
    check: Check
    image: Image
    argv: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Root, ...] = ()
    outputs: tuple[str, ...] = ()
    stdout: bool = False
    resources: Resources = Resources()
    network: bool = False
    seed: int = 0
    clock_s: int = 0
    segments: int = 1
    steps: int = 1
    fuel: int = 0
    expected: bytes | None = None

    def __post_init__(self) -> None:
        within("length of name", len(self.name), 1, MOST_NAME)
        if not _NAME.fullmatch(self.name):
            raise Unfit("name", f"is {self.name!r}; use letters, digits, '.', '_' and '-'")
        _check_arguments("argv", self.argv)
        _check_arguments("setup", self.setup)
        _check_environment(self.env)
        within("number of inputs", len(self.inputs), 0, MOST_ROOTS)
        within("number of outputs", len(self.outputs), 0, MOST_OUTPUTS)
        before = ""
        for path in self.outputs:
            try:
                checked_path(path)
            except BadPath as error:
                raise Unfit("outputs", str(error)) from None
            if path <= before:
                raise Unfit("outputs", f"must be sorted, each once; {path!r} comes too late")
            before = path
        within("seed", self.seed, 0, MOST_SEED)
        within("clock_s", self.clock_s, 0, MOST_CLOCK_S)
        within("segments", self.segments, 1, MOST_SEGMENTS)
        if self.expected is not None:
            within("length of expected digest in bytes", len(self.expected), 32, 32)
        self._check_class()

    def _check_class(self) -> None:
        if (self.check == "wasm") != (self.image.form == "wasm"):
            raise Unfit(
                "check",
                f"is {self.check!r} and the image is {self.image.form!r}; a module is checked as 'wasm'",
            )
        if self.check == "wasm":
            within("fuel", self.fuel, 1, MOST_FUEL)
            within("steps", self.steps, 1, MOST_STEPS)
            if self.setup:
                raise Unfit("setup", "has no shell to run in: a WASM job is one module")
        else:
            within("fuel", self.fuel, 0, 0)
            within("steps", self.steps, 1, 1)
            within("number of arguments", len(self.argv), 1, MOST_ARGUMENTS)
        if self.check == "pinned" and self.image.digest == ZERO_DIGEST:
            raise Unfit("image", "of a pinned job must be named by its digest")
        if self.check == "unverified":
            within("segments of an unverified job", self.segments, 1, 1)
            if self.expected is not None:
                raise Unfit(
                    "expected", "is a promise that an unverified job can't be held to; make it 'pinned'"
                )
        elif self.network:
            raise Unfit(
                "network", "is open, so the result can't be repeated; close it, or make the job 'unverified'"
            )
        if self.resources.gpus and self.check != "unverified":
            raise Unfit("gpus", "don't repeat bit by bit; make the job 'unverified', or do without a GPU")

    def canonical(self) -> bytes:
        return canonical.encode(self)

    def digest(self) -> Digest:
        """The work digest J."""
        return canonical.digest(self)

    def units(self) -> int:
        """The most that the meter can show: fuel of a WASM job, segments of others."""
        return self.fuel if self.check == "wasm" else self.segments

    def input_root(self) -> Digest:
        """All inputs as one digest, for a lease's terms; zeros for none."""
        if not self.inputs:
            return ZERO_DIGEST
        return Digest(blake3(b"".join(it.digest for it in self.inputs)).digest())

    def resources_digest(self) -> Digest:
        return canonical.digest(self.resources)


def decode_spec(raw: bytes) -> JobSpec:
    """Read a stranger's job.

    Raises:
        canonical.Malformed: too long, not a job, out of range, or not in canonical form.
    """
    return canonical.decode(raw, JobSpec, MOST_SPEC_BYTES)


class JobArray(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="jobs.1"):
    """One job over many inputs: task i is the job with `tasks[i]` laid over its inputs. One task means no array."""

    job: JobSpec
    tasks: tuple[Root, ...] = ()

    def __post_init__(self) -> None:
        within("number of tasks", len(self.tasks), 0, MOST_TASKS)
        if self.tasks:
            within("number of inputs", len(self.job.inputs), 0, MOST_ROOTS - 1)
            within("number of variables", len(self.job.env), 0, MOST_VARIABLES - 2)

    def __len__(self) -> int:
        return len(self.tasks) or 1

    def task(self, at: int) -> JobSpec:
        """The spec that task `at` is leased by; it finds its number in CLUSTERAI_TASK and how many there are in CLUSTERAI_TASKS."""
        if not self.tasks:
            assert at == 0, "a job that isn't an array has one task"
            return self.job
        env = (*self.job.env, ("CLUSTERAI_TASK", str(at)), ("CLUSTERAI_TASKS", str(len(self.tasks))))
        return msgspec.structs.replace(
            self.job, env=tuple(sorted(env)), inputs=(*self.job.inputs, self.tasks[at])
        )

    def canonical(self) -> bytes:
        return canonical.encode(self)

    def digest(self) -> Digest:
        return canonical.digest(self)


def decode_array(raw: bytes) -> JobArray:
    """
    Raises:
        canonical.Malformed: as `decode_spec`.
    """
    return canonical.decode(raw, JobArray, MOST_SPEC_BYTES + 64 * MOST_TASKS)


def _check_arguments(field: str, argv: tuple[str, ...]) -> None:
    within(f"number of arguments in {field}", len(argv), 0, MOST_ARGUMENTS)
    total = 0
    for argument in argv:
        if "\0" in argument:
            raise Unfit(field, "holds a zero byte, which no program can be handed")
        total += len(argument.encode())
        if found := _SECRET_VALUE.search(argument):
            raise SecretInSpec(field, f"holds what looks like a secret ({found[0][:6]}…); a spec is public")
    within(f"length of {field} in bytes", total, 0, MOST_ARGUMENT_BYTES)


def _check_environment(env: tuple[tuple[str, str], ...]) -> None:
    within("number of variables", len(env), 0, MOST_VARIABLES)
    before = ""
    total = 0
    for name, value in env:
        if not _VARIABLE.fullmatch(name) or len(name) > 128:
            raise Unfit("env", f"can't hold a variable named {name[:40]!r}")
        if name.startswith("CLUSTERAI_") and name not in ("CLUSTERAI_TASK", "CLUSTERAI_TASKS"):
            raise Unfit("env", f"can't set {name}: names that begin with CLUSTERAI_ are the runner's")
        if name <= before:
            raise Unfit("env", f"must be sorted by name, each once; {name} comes too late")
        if "\0" in value:
            raise Unfit("env", f"{name} holds a zero byte, which no program can be handed")
        if (_SECRET_NAME.search(name) and value) or _SECRET_VALUE.search(value):
            raise SecretInSpec(
                "env",
                f"{name} looks like a secret; a spec is read by gateway, provider and auditors, so leave it out",
            )
        before = name
        total += len(name) + len(value.encode())
    within("length of env in bytes", total, 0, MOST_VARIABLE_BYTES)


__all__ = [
    "AGAIN",
    "DETERMINISM",
    "Check",
    "Image",
    "JobArray",
    "JobSpec",
    "OutOfRange",
    "Resources",
    "Root",
    "SecretInSpec",
    "Unfit",
    "decode_array",
    "decode_spec",
]
