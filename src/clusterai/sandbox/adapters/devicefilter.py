"""Which device files a group of processes may open, as the kernel sees it: a second wall behind a /dev that shows no others.

Version 1 of control groups has a list to write; version 2 asks a program of ours (BPF_PROG_TYPE_CGROUP_DEVICE), which stays with the group
until that is gone. Making device files is refused to everybody in the group.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path

import msgspec

ANY = -1
PLAIN = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, ANY))
"""null, zero, full, random, urandom, tty, ptmx, and terminals: all that a task finds in its /dev."""
BPF = {"x86_64": 321, "aarch64": 280}
PROG_LOAD, PROG_ATTACH = 5, 8
CGROUP_DEVICE_PROGRAM, CGROUP_DEVICE, ALLOW_MULTI = 15, 6, 2
CHAR = 2
_LOAD, _MOVE, _AND, _SHIFT, _JUMP_UNLESS, _JUMP_IF, _EXIT = 0x61, 0xB7, 0x57, 0x77, 0x55, 0x15, 0x95


class Device(msgspec.Struct, frozen=True):
    """A character device by the kernel's numbers; a minor of -1 is all of that major."""

    major: int
    minor: int


def number_of(path: Path) -> Device:
    """
    Raises:
        OSError: it isn't there.
        ValueError: it is no character device.
    """
    status = path.stat()
    if not path.is_char_device():
        raise ValueError(f"{path} is no character device")
    return Device(os.major(status.st_rdev), os.minor(status.st_rdev))


def allowed(more: Iterable[Device]) -> tuple[Device, ...]:
    return tuple(dict.fromkeys([*(Device(*it) for it in PLAIN), *more]))


def lines(devices: Iterable[Device]) -> list[str]:
    """For version 1's `devices.allow`: to read and to write, never to make."""
    return [f"c {it.major}:{'*' if it.minor == ANY else it.minor} rw" for it in devices]


def program(devices: Iterable[Device]) -> bytes:
    """For version 2: 1 where it may be opened, 0 where not. Its argument is (access << 16 | type, major, minor)."""

    def op(code: int, target: int, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("<BBhi", code, source << 4 | target, offset, value)

    made = [op(_LOAD, 2, 1, 0), op(_LOAD, 3, 1, 0), op(_LOAD, 4, 1, 4), op(_LOAD, 5, 1, 8)]
    made += [op(_AND, 2, value=0xFFFF), op(_SHIFT, 3, value=16), op(_AND, 3, value=1), op(_MOVE, 0)]
    # Anything but a character device, and anybody who makes one.
    made += [op(_JUMP_IF, 2, offset=1, value=CHAR), op(_EXIT, 0), op(_JUMP_IF, 3, offset=1), op(_EXIT, 0)]
    for it in devices:
        answer = [op(_MOVE, 0, value=1), op(_EXIT, 0)]
        if it.minor != ANY:
            answer.insert(0, op(_JUMP_UNLESS, 5, offset=2, value=it.minor))
        made += [op(_JUMP_UNLESS, 4, offset=len(answer), value=it.major), *answer]
    return b"".join([*made, op(_EXIT, 0)])


def attach(folder: Path, devices: Iterable[Device]) -> None:
    """To a group of version 2.

    Raises:
        OSError: this kernel or this user can't.
    """
    code = program(devices)
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"Apache-2.0")
    asked = (CGROUP_DEVICE_PROGRAM, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence))
    loaded = _bpf(PROG_LOAD, struct.pack("<IIQQIIQ", *asked, 0, 0, 0).ljust(128, b"\0"))
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _bpf(PROG_ATTACH, struct.pack("<IIII", group, loaded, CGROUP_DEVICE, ALLOW_MULTI).ljust(128, b"\0"))
    finally:
        os.close(group)
        os.close(loaded)


def _bpf(command: int, attributes: bytes) -> int:
    number = BPF.get(platform.machine())
    if number is None:
        raise OSError(0, f"bpf(2) of {platform.machine()} isn't known")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    done = ctypes.CDLL(None, use_errno=True).syscall(number, command, buffer, len(attributes))
    if done < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(done)
