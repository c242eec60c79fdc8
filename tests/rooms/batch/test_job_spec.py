"""A job's spec: every limit holds, and one value has one byte string."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.work.batch import spec as s
from clusterai.work.batch.spec import (
    Image,
    JobArray,
    JobSpec,
    OutOfRange,
    Resources,
    Root,
    SecretInSpec,
    Unfit,
    decode_array,
    decode_spec,
)

D = bytes(range(32))
BASE = Image("base", D, "python")
PINNED = JobSpec(name="pi", check="pinned", image=BASE, argv=("python", "pi.py"), segments=4)
LOOSE = JobSpec(name="pi", check="unverified", image=BASE, argv=("sh",))
MODULE = JobSpec(name="pi", check="wasm", image=Image("wasm", D), fuel=1000)


def changed(job: JobSpec, **fields: Any) -> JobSpec:
    return msgspec.structs.replace(job, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x" * (s.MOST_NAME + 1)},
        {"name": "-x"},
        {"name": "a b"},
        {"argv": ()},
        {"argv": ("x",) * (s.MOST_ARGUMENTS + 1)},
        {"argv": ("x" * (s.MOST_ARGUMENT_BYTES + 1),)},
        {"argv": ("a\0b",)},
        {"setup": ("x",) * (s.MOST_ARGUMENTS + 1)},
        {"env": tuple((f"V{i:04}", "") for i in range(s.MOST_VARIABLES + 1))},
        {"env": (("A", "x" * s.MOST_VARIABLE_BYTES),)},
        {"env": (("A", "a\0"),)},
        {"env": (("1A", ""),)},
        {"env": (("A" * 129, ""),)},
        {"env": (("B", ""), ("A", ""))},
        {"env": (("A", "1"), ("A", "2"))},
        {"env": (("CLUSTERAI_SEED", "1"),)},
        {"inputs": (Root(D, 1, 1),) * (s.MOST_ROOTS + 1)},
        {"outputs": tuple(f"o{i:04}" for i in range(s.MOST_OUTPUTS + 1))},
        {"outputs": ("b", "a")},
        {"outputs": ("a", "a")},
        {"outputs": ("../a",)},
        {"outputs": ("/a",)},
        {"outputs": (".hidden",)},
        {"seed": -1},
        {"seed": s.MOST_SEED + 1},
        {"clock_s": -1},
        {"clock_s": s.MOST_CLOCK_S + 1},
        {"segments": 0},
        {"segments": s.MOST_SEGMENTS + 1},
        {"fuel": 1},
        {"steps": 2},
        {"expected": b"short"},
        {"network": True},
        {"image": Image("base", ZERO_DIGEST, "python")},
        {"image": Image("wasm", D)},
        {"resources": Resources(gpus=1)},
    ],
    ids=lambda fields: "-".join(fields) if isinstance(fields, dict) else None,  # pyright: ignore[reportUnknownArgumentType]
)
def test_what_is_out_of_range_is_no_pinned_job(fields: dict[str, Any]):
    """Each limit is refused just beyond it, on making and on decoding."""
    with pytest.raises((OutOfRange, Unfit)):
        changed(PINNED, **fields)


@pytest.mark.parametrize(
    ("low", "high", "field"),
    [
        (100, 1_024_000, "cpu_milli"),
        (16 * s.MIB, 4 * s.TIB, "memory_bytes"),
        (s.MIB, 16 * s.TIB, "disk_bytes"),
        (1, 30 * s.DAY_S, "time_s"),
        (1, 32_768, "processes"),
        (0, 64, "gpus"),
    ],
)
def test_resources_have_ends(low: int, high: int, field: str):
    """Both ends are possible, and one beyond isn't."""
    for right in (low, high):
        assert getattr(msgspec.structs.replace(Resources(), **{field: right}), field) == right
    for wrong in (low - 1, high + 1):
        with pytest.raises(OutOfRange, match=field):
            msgspec.structs.replace(Resources(), **{field: wrong})


@pytest.mark.parametrize("gpu", ["x" * 65, "näh", "a\nb"])
def test_a_gpu_has_a_plain_name(gpu: str):
    """Printable ASCII, and at least one GPU of it."""
    with pytest.raises((OutOfRange, Unfit)):
        Resources(gpus=1, gpu=gpu)
    with pytest.raises(Unfit, match="gpus is 0"):
        Resources(gpu="H100")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image("oci", ZERO_DIGEST, "debian"),
        lambda: Image("oci", D),
        lambda: Image("base", D),
        lambda: Image("tar", D[:31]),
        lambda: Image("oci", D, "a b"),
        lambda: Image("oci", D, "x" * 256),
        lambda: Root(D[:31], 1, 1),
        lambda: Root(D, 4001, 1),
        lambda: Root(D, 1, 16 * s.TIB + 1),
        lambda: changed(MODULE, fuel=0),
        lambda: changed(MODULE, fuel=s.MOST_FUEL + 1),
        lambda: changed(MODULE, steps=0),
        lambda: changed(MODULE, steps=s.MOST_STEPS + 1),
        lambda: changed(MODULE, setup=("sh",)),
        lambda: changed(MODULE, image=BASE),
        lambda: changed(LOOSE, segments=2),
        lambda: changed(LOOSE, expected=D),
        lambda: JobArray(PINNED, (Root(D, 1, 1),) * (s.MOST_TASKS + 1)),
        lambda: JobArray(changed(PINNED, inputs=(Root(D, 1, 1),) * s.MOST_ROOTS), (Root(D, 1, 1),)),
        lambda: JobArray(
            changed(PINNED, env=tuple((f"V{i:04}", "") for i in range(s.MOST_VARIABLES - 1))),
            (Root(D, 1, 1),),
        ),
    ],
)
def test_what_is_no_job(make: Any):
    """Images without content, classes that can't be checked, arrays that are too long."""
    with pytest.raises((OutOfRange, Unfit)):
        make()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "x"),
        ("DB_PASSWORD", "x"),
        ("aws_secret_access_key", "x"),
        ("OPENAI_API_KEY", "x"),
        ("HARMLESS", "sk-clusterai-0123456789abcdef0123"),
        ("HARMLESS", "-----BEGIN EC PRIVATE KEY-----"),
    ],
)
def test_a_secret_is_not_in_a_spec(name: str, value: str):
    """Names and values that look like secrets are refused, on the requester's side already, and the value isn't repeated."""
    with pytest.raises(SecretInSpec, match=r"public|read by") as caught:
        changed(PINNED, env=((name, value),))
    assert len(value) < 8 or value not in str(caught.value)


def test_a_secret_is_not_an_argument():
    """`curl -H 'Bearer sk-…'` would be public too."""
    with pytest.raises(SecretInSpec):
        changed(PINNED, argv=("sh", "-c", "login hf_0123456789012345678901"))


def test_words_that_are_no_secrets_may_be_used():
    """A maximal number of tokens is no token."""
    assert changed(PINNED, env=(("KEYBOARD", "x"), ("MAX_TOKENS", "5"))).env


@pytest.mark.parametrize("job", [PINNED, LOOSE, MODULE], ids=["pinned", "unverified", "wasm"])
def test_canonical_bytes_come_back(job: JobSpec):
    """A spec that was sent is the spec that is read."""
    assert decode_spec(job.canonical()) == job
    array = JobArray(job, (Root(D, 1, 9),))
    assert decode_array(array.canonical()) == array


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        PINNED.canonical()[:-1],
        PINNED.canonical() + b"\0",
        canonical.encode(Root(D, 1, 1)),
        b"\x00" * (s.MOST_SPEC_BYTES + 1),
        PINNED.canonical().replace(b"pinned", b"trusty"),
    ],
)
def test_a_strangers_bytes_are_refused(raw: bytes):
    """Cut, padded, of another shape, too long, or of a class that isn't."""
    with pytest.raises(canonical.Malformed):
        decode_spec(raw)


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_decoder(raw: bytes):
    """Anything is a spec or Malformed."""
    with contextlib.suppress(canonical.Malformed):
        assert decode_spec(raw).canonical() == raw


@given(st.data())
def test_no_flipped_byte_crashes_the_decoder(data: st.DataObject):
    """A changed spec is another spec, with another digest, or Malformed."""
    raw = bytearray(PINNED.canonical())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(canonical.Malformed):
        assert decode_spec(bytes(raw)).digest() != PINNED.digest()


def test_each_field_changes_the_digest():
    """What the result depends on can't be changed under the same work digest."""
    others = [
        changed(PINNED, name="po"),
        changed(PINNED, argv=("python", "pi.py", "1")),
        changed(PINNED, setup=("sh",)),
        changed(PINNED, env=(("A", "1"),)),
        changed(PINNED, inputs=(Root(D, 1, 1),)),
        changed(PINNED, outputs=("out",)),
        changed(PINNED, stdout=True),
        changed(PINNED, resources=Resources(cpu_milli=2000)),
        changed(PINNED, seed=1),
        changed(PINNED, clock_s=1),
        changed(PINNED, segments=5),
        changed(PINNED, expected=D),
        changed(PINNED, image=Image("tar", D)),
    ]
    assert len({job.digest() for job in [PINNED, *others]}) == len(others) + 1


def test_a_task_of_an_array_is_a_job():
    """It has its own input and finds its number."""
    first, second = Root(D, 1, 1), Root(D[::-1], 1, 1)
    array = JobArray(changed(PINNED, env=(("Z", "1"),)), (first, second))
    task = array.task(1)
    assert len(array) == 2
    assert task.inputs == (second,)
    assert task.env == (("CLUSTERAI_TASK", "1"), ("CLUSTERAI_TASKS", "2"), ("Z", "1"))
    assert array.task(0).digest() != task.digest()
    assert decode_spec(task.canonical()) == task
    assert JobArray(PINNED).task(0) == PINNED


def test_what_the_meter_counts():
    """Fuel for a module, segments for the rest."""
    assert MODULE.units() == 1000
    assert PINNED.units() == 4
    assert LOOSE.units() == 1
    assert PINNED.input_root() == ZERO_DIGEST != changed(PINNED, inputs=(Root(D, 1, 1),)).input_root()
