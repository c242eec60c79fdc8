"""Each limit of a job's spec, at its end and one beyond, through the bytes that a stranger sends."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clusterai.protocol.canonical import Malformed
from clusterai.work.batch import spec as s
from clusterai.work.batch.core.tree import MOST_ENTRIES
from clusterai.work.batch.spec import Image, JobArray, JobSpec, OutOfRange, Resources, Root, Unfit

D = bytes(range(32))
ROOT = Root(D, 1, 1)
BASE = Image("base", D, "python")
PINNED = JobSpec(name="pi", check="pinned", image=BASE, argv=("python",))
LOOSE = JobSpec(name="pi", check="unverified", image=BASE, argv=("sh",))
MODULE = JobSpec(name="pi", check="wasm", image=Image("wasm", D), fuel=1000)
PATH = "/".join(["p" * 128] * 7)
"""The longest there may be."""


def at(job: JobSpec, field: str, make: Callable[[int], Any], most: int, name: str = "") -> Any:
    return pytest.param(job, field, make, most, id=f"{job.check}-{field}{name}")


def variables(count: int) -> tuple[tuple[str, str], ...]:
    return tuple((f"V{number:04}", "") for number in range(count))


def resources(field: str) -> Callable[[int], Resources]:
    return lambda value: msgspec.structs.replace(Resources(), **{field: value})


def gpu(length: int) -> Resources:
    return Resources(gpus=1, gpu="x" * length)


LIMITS = [
    at(PINNED, "name", lambda n: "x" * n, s.MOST_NAME),
    at(PINNED, "argv", lambda n: ("x",) * n, s.MOST_ARGUMENTS),
    at(PINNED, "argv", lambda n: ("x" * (n - 2), "ü"), s.MOST_ARGUMENT_BYTES, "-bytes"),
    at(PINNED, "setup", lambda n: ("x",) * n, s.MOST_ARGUMENTS),
    at(PINNED, "setup", lambda n: ("x" * n,), s.MOST_ARGUMENT_BYTES, "-bytes"),
    at(PINNED, "env", variables, s.MOST_VARIABLES),
    at(PINNED, "env", lambda n: (("A", "x" * (n - 1)),), s.MOST_VARIABLE_BYTES, "-bytes"),
    at(PINNED, "env", lambda n: (("A" * n, ""),), 128, "-name"),
    at(PINNED, "inputs", lambda n: (ROOT,) * n, s.MOST_ROOTS),
    at(PINNED, "outputs", lambda n: tuple(f"o{number:04}" for number in range(n)), s.MOST_OUTPUTS),
    at(PINNED, "outputs", lambda n: (f"{PATH[:-128]}{'p' * n}",), 128, "-part"),
    at(PINNED, "outputs", lambda n: ("/".join("p" * n),), 7, "-depth"),
    at(PINNED, "seed", int, s.MOST_SEED),
    at(PINNED, "clock_s", int, s.MOST_CLOCK_S),
    at(PINNED, "segments", int, s.MOST_SEGMENTS),
    at(PINNED, "expected", bytes, 32),
    at(PINNED, "fuel", int, 0),
    at(PINNED, "steps", int, 1),
    at(LOOSE, "segments", int, 1),
    at(MODULE, "fuel", int, s.MOST_FUEL),
    at(MODULE, "steps", int, s.MOST_STEPS),
    at(MODULE, "setup", lambda n: ("x",) * n, 0),
    at(MODULE, "argv", lambda n: ("x",) * n, s.MOST_ARGUMENTS),
    at(PINNED, "inputs", lambda n: (Root(D, n, 1),), MOST_ENTRIES, "-files"),
    at(PINNED, "inputs", lambda n: (Root(D, 1, n),), 16 * s.TIB, "-size"),
    at(PINNED, "inputs", lambda n: (Root(bytes(n), 1, 1),), 32, "-digest"),
    at(PINNED, "image", lambda n: Image("oci", D, "x" * n), 255, "-name"),
    at(PINNED, "image", lambda n: Image("tar", b"\1" * n), 32, "-digest"),
    at(PINNED, "resources", resources("cpu_milli"), 1_024_000, "-cpu"),
    at(PINNED, "resources", resources("memory_bytes"), 4 * s.TIB, "-memory"),
    at(PINNED, "resources", resources("disk_bytes"), 16 * s.TIB, "-disk"),
    at(PINNED, "resources", resources("time_s"), 30 * s.DAY_S, "-time"),
    at(PINNED, "resources", resources("processes"), 32_768, "-processes"),
    at(PINNED, "resources", resources("gpus"), 0, "-gpus"),
    at(LOOSE, "resources", resources("gpus"), 64, "-gpus"),
    at(LOOSE, "resources", gpu, 64, "-gpu"),
]
LEAST = [
    at(PINNED, "name", lambda n: "x" * n, 1),
    at(PINNED, "argv", lambda n: ("x",) * n, 1),
    at(PINNED, "seed", int, 0),
    at(PINNED, "clock_s", int, 0),
    at(PINNED, "segments", int, 1),
    at(PINNED, "expected", bytes, 32),
    at(PINNED, "steps", int, 1),
    at(PINNED, "fuel", int, 0),
    at(MODULE, "fuel", int, 1),
    at(MODULE, "steps", int, 1),
    at(PINNED, "inputs", lambda n: (Root(D, n, 1),), 0, "-files"),
    at(PINNED, "inputs", lambda n: (Root(D, 1, n),), 0, "-size"),
    at(PINNED, "inputs", lambda n: (Root(bytes(n), 1, 1),), 32, "-digest"),
    at(PINNED, "image", lambda n: Image("tar", b"\1" * n), 32, "-digest"),
    at(PINNED, "image", lambda n: Image("oci", D, "x" * n), 1, "-name"),
    at(PINNED, "resources", resources("cpu_milli"), 100, "-cpu"),
    at(PINNED, "resources", resources("memory_bytes"), 16 * s.MIB, "-memory"),
    at(PINNED, "resources", resources("disk_bytes"), s.MIB, "-disk"),
    at(PINNED, "resources", resources("time_s"), 1, "-time"),
    at(PINNED, "resources", resources("processes"), 1, "-processes"),
    at(PINNED, "resources", resources("gpus"), 0, "-gpus"),
]


@pytest.mark.parametrize(("job", "field", "make", "most"), LIMITS)
def test_the_most_is_taken_and_one_more_is_not(
    job: JobSpec, field: str, make: Callable[[int], Any], most: int
):
    """The bound itself is a job; one beyond is none, whoever made it."""
    assert s.decode_spec(msgspec.structs.replace(job, **{field: make(most)}).canonical())
    refused(job, field, make, most + 1)


@pytest.mark.parametrize(("job", "field", "make", "least"), LEAST)
def test_the_least_is_taken_and_one_less_is_not(
    job: JobSpec, field: str, make: Callable[[int], Any], least: int
):
    """As above, from below."""
    assert s.decode_spec(msgspec.structs.replace(job, **{field: make(least)}).canonical())
    refused(job, field, make, least - 1)


def refused(job: JobSpec, field: str, make: Callable[[int], Any], n: int) -> None:
    with pytest.raises((OutOfRange, Unfit, ValueError)):
        msgspec.structs.replace(job, **{field: make(n)})
    if isinstance(found := _unchecked(make, n), list | tuple | str | int | bytes):
        forged: list[Any] = msgspec.msgpack.decode(job.canonical(), strict=True)
        forged[1 + job.__struct_fields__.index(field)] = found
        with pytest.raises(Malformed):
            s.decode_spec(msgspec.msgpack.encode(forged))


def _unchecked(make: Callable[[int], Any], n: int) -> Any:
    """The value where it can be made at all; a part that refuses itself is refused already."""
    try:
        return msgspec.to_builtins(make(n), builtin_types=(bytes,))
    except ValueError:
        return None


@pytest.mark.parametrize("decode", [s.decode_spec, s.decode_array])
def test_bytes_beyond_the_bound_are_not_looked_at(decode: Callable[[bytes], object]):
    """At the bound they are read, and are no job; one more and they aren't read."""
    most = s.MOST_SPEC_BYTES + (64 * s.MOST_TASKS if decode is s.decode_array else 0)
    with pytest.raises(Malformed) as read:
        decode(bytes(most))
    with pytest.raises(Malformed) as unread:
        decode(bytes(most + 1))
    assert str(most) in str(unread.value)
    assert str(read.value) != str(unread.value)


def test_the_largest_job_is_one():
    """Every list and text at its bound at once fits into the bytes that may be sent."""
    job = msgspec.structs.replace(
        PINNED,
        name="x" * s.MOST_NAME,
        argv=("x",) * (s.MOST_ARGUMENTS - 1) + ("x" * (s.MOST_ARGUMENT_BYTES - s.MOST_ARGUMENTS + 1),),
        setup=("x" * s.MOST_ARGUMENT_BYTES,),
        env=(("A", "x" * (s.MOST_VARIABLE_BYTES - 1)),),
        inputs=(ROOT,) * s.MOST_ROOTS,
        outputs=tuple(f"{PATH[:-4]}{number:04}" for number in range(s.MOST_OUTPUTS)),
        image=Image("oci", D, "x" * 255),
        expected=D,
    )
    assert s.decode_spec(job.canonical()) == job


@pytest.mark.parametrize(
    ("job", "tasks", "more"),
    [
        (PINNED, s.MOST_TASKS, (PINNED, s.MOST_TASKS + 1)),
        (
            msgspec.structs.replace(PINNED, inputs=(ROOT,) * (s.MOST_ROOTS - 1)),
            1,
            (msgspec.structs.replace(PINNED, inputs=(ROOT,) * s.MOST_ROOTS), 1),
        ),
        (
            msgspec.structs.replace(PINNED, env=variables(s.MOST_VARIABLES - 2)),
            1,
            (msgspec.structs.replace(PINNED, env=variables(s.MOST_VARIABLES - 1)), 1),
        ),
    ],
    ids=["tasks", "inputs", "variables"],
)
def test_an_array_has_ends(job: JobSpec, tasks: int, more: tuple[JobSpec, int]):
    """Its last task is still a job; one more, and it is no array."""
    array = JobArray(job, (ROOT,) * tasks)
    assert s.decode_array(array.canonical()).task(tasks - 1)
    with pytest.raises(OutOfRange):
        JobArray(more[0], (ROOT,) * more[1])
