"""A task is content: strict to decode, bounded in all it asks, and the same bytes for the same work."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox import Container, Limits, RootFs, Task, Wasm, decode_task
from clusterai.sandbox.core.spec import GiB, is_file_name

ONE = Digest(bytes(range(32)))


def task(**changes: object) -> Task:
    return msgspec.convert(
        {"image": RootFs("python"), "argv": ["true"], **changes}, Task, from_attributes=True
    )


@pytest.mark.parametrize(
    "image", [Wasm(ONE), RootFs("python"), RootFs("blake3:" + "ab" * 32), Container("sha256:" + "0" * 64)]
)
def test_a_task_survives_its_bytes(image: Wasm | RootFs | Container) -> None:
    """Whatever the image, decoding gives the same task and encoding the same bytes."""
    before = Task(image=image, argv=("a", "b"), env={"B": "1", "A": "2"}, inputs={"x/y": ONE})
    data = canonical.encode(before)
    assert decode_task(data) == before
    assert canonical.encode(decode_task(data)) == data


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_bytes", 1),
        ("memory_bytes", 5 << 40),
        ("cpu_milli", 0),
        ("processes", 0),
        ("processes", 10**6),
        ("disk_bytes", 0),
        ("wall_s", 0),
        ("wall_s", 31 * 86_400),
        ("open_files", 10**6),
        ("output_bytes", GiB + 1),
        ("fuel", 2**63),
        ("files", 0),
    ],
)
def test_no_limit_is_beyond_its_maximum(field: str, value: int) -> None:
    """A limit out of its range is no task, whoever signed it."""
    data = msgspec.msgpack.encode(
        {**msgspec.to_builtins(Task(image=RootFs("python"), argv=("x",))), "limits": {field: value}}
    )
    with pytest.raises(canonical.Malformed):
        decode_task(data)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        ".hidden",
        "a/.b",
        "a\0b",
        "a\nb",
        "a b",
        "x" * 129,
        "/".join("a" * 9),
        "é",
        "-rf",
    ],
)
def test_a_name_that_could_bend_is_no_name(name: str) -> None:
    """Names that leave the folder, hide in it or confuse a shell are refused."""
    assert not is_file_name(name)
    with pytest.raises(ValueError, match="name"):
        Task(image=RootFs("python"), argv=("x",), inputs={name: ONE})


def test_what_makes_no_sense_is_refused() -> None:
    """No program, a NUL, a bad variable, a tag for an image, an input inside another."""
    for wrong in (
        lambda: Task(image=RootFs("python")),
        lambda: Task(image=RootFs("python"), argv=("a\0b",)),
        lambda: Task(image=RootFs("python"), argv=("a",), env={"A=B": "1"}),
        lambda: Task(image=RootFs("python"), argv=("a",), env={"A": "\0"}),
        lambda: Task(image=RootFs("python"), argv=("a" * 200_000,)),
        lambda: Task(image=RootFs("python"), argv=("a",), inputs={"a": ONE, "a/b": ONE}),
        lambda: RootFs("../../etc"),
        lambda: Container("docker.io/library/debian:latest"),
    ):
        with pytest.raises(ValueError, match=r".+"):
            wrong()


def test_a_second_spelling_is_refused() -> None:
    """Unknown fields and bytes that are not canonical are no task."""
    good = msgspec.to_builtins(Task(image=RootFs("python"), argv=("x",)))
    for wrong in ({**good, "more": 1}, {key: good[key] for key in reversed(good)}):
        with pytest.raises(canonical.Malformed):
            decode_task(msgspec.msgpack.encode(wrong))


@given(st.binary(max_size=400))
def test_noise_is_never_a_task(data: bytes) -> None:
    """A stranger's bytes are refused in one way only."""
    with pytest.raises(canonical.Malformed):
        decode_task(data)


def test_the_defaults_are_within_the_limits() -> None:
    """What somebody gets who asks for nothing can be asked for."""
    assert msgspec.convert(msgspec.to_builtins(Limits()), Limits) == Limits()
    assert task().network is False
