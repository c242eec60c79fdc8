"""WASI as a pure machine: files in memory only, one clock, one source of chance, and no way out."""

import pytest

from clusterai.sandbox import Limits, Reason, Task, Wasm
from clusterai.sandbox.core import wasi
from clusterai.sandbox.core.wasi import (
    BADF,
    EXIST,
    FAULT,
    INVAL,
    ISDIR,
    MFILE,
    NOENT,
    NOSPC,
    NOTCAPABLE,
    NOTSUP,
    ROFS,
    Wasi,
)
from tests.rooms.sandbox.guests import run, start


class Flat:
    """A memory for calling the machine without a module."""

    def __init__(self, size: int = 1 << 16) -> None:
        self.data = bytearray(size)

    def read(self, at: int, size: int) -> bytes:
        if at + size > len(self.data):
            raise wasi.Fault
        return bytes(self.data[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        if at + len(data) > len(self.data):
            raise wasi.Fault
        self.data[at : at + len(data)] = data

    def u32(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 4], "little")


def machine(inputs: dict[str, bytes] | None = None, **limits: int) -> tuple[Wasi, Flat]:
    task = Task(image=Wasm(bytes(32)), argv=("a", "bc"), env={"K": "v"}, limits=Limits(**limits))  # pyright: ignore[reportArgumentType]
    return Wasi(task, inputs or {}), Flat()


def open_(system: Wasi, memory: Flat, path: str, how: int = 0, rights: int = 2 | 64, base: int = 3) -> int:
    """The error number; the descriptor is at 0."""
    memory.write(1000, path.encode())
    return system.call("path_open", memory, (base, 0, 1000, len(path.encode()), how, rights, 0, 0, 0))


def write(system: Wasi, memory: Flat, descriptor: int, data: bytes) -> int:
    memory.write(3000, data)
    memory.write(16, (3000).to_bytes(4, "little") + len(data).to_bytes(4, "little"))
    return system.call("fd_write", memory, (descriptor, 16, 1, 24))


def read(system: Wasi, memory: Flat, descriptor: int, size: int = 100) -> bytes:
    memory.write(16, (5000).to_bytes(4, "little") + size.to_bytes(4, "little"))
    assert system.call("fd_read", memory, (descriptor, 16, 1, 24)) == 0
    return memory.read(5000, memory.u32(24))


def test_files_are_written_and_read_back() -> None:
    """What is made under out is an output, what is under tmp is not, and appending appends."""
    system, memory = machine({"a/b": b"input"})
    for path in ("in/a/b", "/job/in/a/b", "./in/../in/a//b"):
        assert open_(system, memory, path, rights=2) == 0
        assert read(system, memory, memory.u32(0)) == b"input"
    for path in ("out/x", "tmp/y"):
        assert open_(system, memory, path, how=1) == 0
        assert (
            write(system, memory, memory.u32(0), b"one") == write(system, memory, memory.u32(0), b"two") == 0
        )
    assert system.outputs() == {"x": b"onetwo"}
    assert open_(system, memory, "out/x", how=8) == 0
    assert system.outputs() == {"x": b""}


@pytest.mark.parametrize(
    ("path", "how", "error"),
    [
        ("../etc/passwd", 0, NOTCAPABLE),
        ("in/../../x", 0, NOTCAPABLE),
        ("etc/passwd", 0, NOENT),
        ("etc/passwd", 1, ROFS),
        ("in/new", 1, ROFS),
        ("in/a/b", 8, ROFS),
        ("out/no/such", 1, NOENT),
        ("out", 1, ISDIR),
        ("out", 1 | 4, EXIST),
        ("out/\0", 1, 25),
    ],
)
def test_no_path_leads_out(path: str, how: int, error: int) -> None:
    """Leaving the root, writing inputs and inventing folders are errors."""
    system, memory = machine({"a/b": b"input"})
    if error == EXIST:
        how |= 4
    assert open_(system, memory, path, how=how) == error


def test_links_and_sockets_do_not_exist() -> None:
    """Calls for them answer "not supported"."""
    system, memory = machine()
    for name, count in (
        ("path_symlink", 5),
        ("path_link", 7),
        ("path_readlink", 6),
        ("sock_accept", 3),
        ("sock_send", 5),
    ):
        assert system.call(name, memory, (3,) * count) == NOTSUP


def test_the_volume_is_bounded() -> None:
    """Bytes, files and open descriptors have their limits; deleting gives room back."""
    system, memory = machine(disk_bytes=65536, files=4, open_files=16)
    assert open_(system, memory, "out/a", how=1) == 0
    first = memory.u32(0)
    assert system.call("fd_filestat_set_size", memory, (first, 65536)) == 0
    assert system.call("fd_filestat_set_size", memory, (first, 65537)) == NOSPC
    assert system.call("fd_filestat_set_size", memory, (first, -1)) == NOSPC
    assert open_(system, memory, "out/b", how=1) == 0
    assert write(system, memory, memory.u32(0), b"x") == NOSPC
    assert open_(system, memory, "out/c", how=1) == NOSPC
    memory.write(1000, b"out/a")
    assert system.call("path_unlink_file", memory, (3, 1000, 5)) == 0
    assert open_(system, memory, "out/c", how=1) == 0
    assert write(system, memory, memory.u32(0), b"x") == 0
    assert write(system, memory, first, b"x") == BADF
    while (error := open_(system, memory, "out/c")) == 0:
        pass
    assert error == MFILE


def test_pointers_beyond_the_memory_are_faults() -> None:
    """Every function survives every wild argument with an error number."""
    system, memory = machine({"a": b"x"})
    for name, (_, kinds) in wasi.FUNCTIONS.items():
        if name == "proc_exit":
            continue
        for value in (-1, 0, 3, 65535, 2**31 - 1, -(2**31)):
            error = system.call(name, memory, (value,) * len(kinds))
            assert 0 <= error <= 76, (name, value)
    assert system.call("random_get", memory, (0, -1)) == FAULT
    assert system.call("poll_oneoff", memory, (0, 0, 0, 0)) == INVAL


def test_a_sleep_is_over_at_its_later_time() -> None:
    """Time moves by what was slept, and nothing waits."""
    system, memory = machine()
    memory.write(
        100,
        bytes(8)
        + bytes([0])
        + bytes(7)
        + (1).to_bytes(8, "little")
        + (5 * 10**9).to_bytes(8, "little")
        + bytes(16),
    )
    before = system.snapshot().clock_ns
    assert system.call("poll_oneoff", memory, (100, 200, 1, 300)) == 0
    assert memory.u32(300) == 1
    assert system.snapshot().clock_ns >= before + 5 * 10**9


def test_arguments_and_environment_arrive() -> None:
    """argv and env are as in the task, and nothing is added."""
    system, memory = machine()
    assert system.call("args_sizes_get", memory, (0, 4)) == 0
    assert (memory.u32(0), memory.u32(4)) == (2, 5)
    assert system.call("args_get", memory, (100, 200)) == 0
    assert memory.read(200, 5) == b"a\0bc\0"
    assert system.call("environ_get", memory, (100, 200)) == 0
    assert memory.read(200, 4) == b"K=v\0"


def test_a_folder_lists_what_is_in_it() -> None:
    """Entries come sorted, with their kinds, and go on from a cookie."""
    system, memory = machine({"b": b"", "a/c": b""})
    assert open_(system, memory, "in", how=2) == 0
    assert system.call("fd_readdir", memory, (memory.u32(0), 2000, 1000, 0, 8)) == 0
    raw = memory.read(2000, memory.u32(8))
    names: list[bytes] = []
    while raw:
        size = int.from_bytes(raw[16:20], "little")
        names.append(raw[24 : 24 + size])
        raw = raw[24 + size :]
    assert names == [b".", b"..", b"a", b"b"]


def test_a_program_s_exit_code_is_told() -> None:
    """proc_exit ends a module, with its code."""
    result = run(start("(call $proc_exit (i32.const 3)) (unreachable)", "proc_exit"))
    assert (result.reason, result.exit_code) == (Reason.FAILED, 3)
    assert run(start("(call $proc_exit (i32.const 0)) (unreachable)", "proc_exit")).reason is Reason.FINISHED
