"""What a tenant asks to be run, under which limits, and how it can end.

A `Task` is content: two tasks with the same bytes are the same work. So that its digest can stand in an order, it
holds no floats and names all it reads by content. Every limit has a largest value, so that no message can ask a
node for more than any node would ever lend.
"""

import re
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB

MAX_TASK_BYTES = MiB
"""Arguments, environment and the names of inputs together; what is larger belongs into an input."""

MAX_TEXT_BYTES = 100 * KiB
"""Of one argument or variable: the kernel takes 128 KiB."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ROOT = re.compile(r"[a-z][a-z0-9-]{0,31}|blake3:[0-9a-f]{64}")
_IMAGE = re.compile(r"sha256:[0-9a-f]{64}")
MAX_DEPTH = 8


def is_file_name(name: str) -> bool:
    """A relative path of at most 8 plain parts: no `..`, no hidden file, nothing that a shell or a link could bend."""
    parts = name.split("/")
    return len(parts) <= MAX_DEPTH and all(_NAME.fullmatch(part) for part in parts)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The most that a task may use; the first that is met ends it, with that reason."""

    memory_bytes: Annotated[int, Meta(ge=16 * MiB, le=4 * TiB)] = 512 * MiB
    """Of all its processes together. Files in the job's volume do not count here."""
    cpu_milli: Annotated[int, Meta(ge=10, le=1_024_000)] = 1000
    """Thousandths of a core, on average over 100 ms."""
    processes: Annotated[int, Meta(ge=1, le=32_768)] = 64
    """Processes and threads alive at once."""
    disk_bytes: Annotated[int, Meta(ge=64 * KiB, le=16 * TiB)] = 256 * MiB
    files: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    """Files, folders and links in the job's volume at once."""
    wall_s: Annotated[int, Meta(ge=1, le=30 * 86_400)] = 600
    cpu_s: Annotated[int, Meta(ge=1, le=30 * 86_400 * 1024)] = 600
    open_files: Annotated[int, Meta(ge=16, le=65_536)] = 256
    """Of each process."""
    output_bytes: Annotated[int, Meta(ge=0, le=GiB)] = 4 * MiB
    """Standard output and error together. Files in `out` are bounded by `disk_bytes`."""
    fuel: Annotated[int, Meta(ge=1, le=2**62)] = 10**11
    """WASM instructions, as wasmtime counts them; of no meaning for other images."""


class Wasm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="wasm"):
    """A module, run on WASI preview 1 with a fixed clock and seeded randomness: bitwise the same everywhere."""

    module: Annotated[Digest, Meta(min_length=32, max_length=32)]


class RootFs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="root"):
    """A file system, read-only: a name that the node offers (`python`), or `blake3:…` of a tar in the store."""

    root: str

    def __post_init__(self) -> None:
        if not _ROOT.fullmatch(self.root):
            raise ValueError(f"a root is a short name or blake3:<64 hex>, got {self.root[:80]!r}")

    @property
    def digest(self) -> Digest | None:
        """The tar's content digest, where the root is not one of the node's own."""
        return Digest(bytes.fromhex(self.root[7:])) if self.root.startswith("blake3:") else None


class Container(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="container"):
    """An OCI image by its digest, never by a tag, since a tag can be moved."""

    image: str

    def __post_init__(self) -> None:
        if not _IMAGE.fullmatch(self.image):
            raise ValueError(f"an image is sha256:<64 hex>, never a tag, got {self.image[:80]!r}")


Image = Wasm | RootFs | Container


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of a program.

    It finds its inputs in `/job/in/<name>`, read-only, and leaves what shall be kept in `/job/out`.
    """

    image: Image
    argv: Annotated[tuple[str, ...], Meta(max_length=1024)] = ()
    env: Annotated[dict[str, str], Meta(max_length=256)] = {}
    inputs: Annotated[
        dict[str, Annotated[Digest, Meta(min_length=32, max_length=32)]], Meta(max_length=4096)
    ] = {}
    network: bool = False
    limits: Limits = Limits()
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """What WASI's `random_get` draws from, and `CLUSTERAI_SEED` for others."""
    clock_s: Annotated[int, Meta(ge=0, lt=2**33)] = 0
    """What a WASM module reads as the time, in seconds since 1970."""

    def __post_init__(self) -> None:
        for text in (*self.argv, *self.env.values()):
            if "\0" in text:
                raise ValueError("an argument or a variable holds a NUL byte")
            if len(text.encode()) > MAX_TEXT_BYTES:
                raise ValueError(
                    f"an argument or a variable is longer than {MAX_TEXT_BYTES} bytes: make it an input"
                )
        for name in self.env:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"not a variable's name: {name[:80]!r}")
        for name in self.inputs:
            if not is_file_name(name):
                raise ValueError(
                    f"not an input's name: {name[:80]!r}; use letters, digits and . _ - in up to 8 parts"
                )
            parts = name.split("/")
            for depth in range(1, len(parts)):
                if "/".join(parts[:depth]) in self.inputs:
                    raise ValueError(f"an input lies inside another: {name[:80]!r}")
        if not isinstance(self.image, Wasm) and not self.argv:
            raise ValueError("argv is empty: name the program to run")


class Reason(StrEnum):
    """Why a task ended: the whole list. A tenant is always told the true one."""

    FINISHED = "finished"
    FAILED = "failed"
    """It ended by itself with a code other than 0, or by a signal of its own (128 + signal)."""
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_TIME = "out_of_time"
    OUT_OF_CPU = "out_of_cpu"
    OUT_OF_DISK = "out_of_disk"
    TOO_MANY_PROCESSES = "too_many_processes"
    TOO_MUCH_OUTPUT = "too_much_output"
    OUT_OF_FUEL = "out_of_fuel"
    TRAPPED = "trapped"
    """A WASM module did what no module may: `why` names the trap."""
    CANCELLED = "cancelled"
    LEASE_ENDED = "lease_ended"
    REFUSED = "refused"
    """It was never started: `why` says what to change."""


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was measured, by the host, from outside."""

    wall_ms: int = 0
    cpu_ms: int = 0
    max_rss_bytes: int = 0
    """The most memory of all processes together where a control group counts it, else of the largest one."""
    disk_bytes: int = 0
    """The most that the job's volume held when it was looked at."""
    fuel: int = 0


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    digest: Digest
    size: int


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    reason: Reason
    exit_code: int = 0
    why: str = ""
    """One sentence for the tenant: which limit, which trap, what was refused."""
    usage: Usage = Usage()
    outputs: tuple[Output, ...] = ()
    """Files left in `out`, sorted by name, in the store."""
    skipped: tuple[str, ...] = ()
    """What lay in `out` and was not taken: links, devices, pipes and names that are not plain. At most 100."""
    stdout: bytes = b""
    """The first bytes of it, to `LOG_BYTES`; a caller who wants all of it takes it as it streams."""
    stderr: bytes = b""
    truncated: bool = False
    """`stdout` and `stderr` are not all that was written."""
    runner: str = ""
    """What ran it, in words: which walls stood around it."""

    @property
    def ok(self) -> bool:
        return self.reason is Reason.FINISHED


LOG_BYTES = 64 * KiB
"""Of each stream, kept in the outcome."""


def decode_task(data: bytes) -> Task:
    """Raises: canonical.Malformed."""
    return canonical.decode(data, Task, MAX_TASK_BYTES)


def refused(why: str, runner: str = "") -> Outcome:
    return Outcome(reason=Reason.REFUSED, why=why, runner=runner)
