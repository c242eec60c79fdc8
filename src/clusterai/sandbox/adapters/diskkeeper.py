"""The program that holds one encrypted disk, its key and the only mount of it. Standard library alone; run by `disk.py`.

    python -I -S diskkeeper.py FOLDER BYTES PLACE GOCRYPTFS PARENT
    -> {"said": "ready", "cipher": pid}     the disk is mounted on PLACE, in this process's mount namespace and nowhere else
    -> {"said": "failed", "why": "..."}
    -> {"said": "died", "why": "..."}       what encrypts it ended by itself
    <- end of input: the disk goes

        FOLDER/cipher/disk ── gocryptfs ── FOLDER/plain/disk ── loop device ── ext4 ── PLACE
        what the machine's disk sees       no bigger than BYTES                what the tenant sees

The key is drawn here, handed to gocryptfs through a pipe, and written nowhere. Two mount namespaces, because a process that dies
unmounts what nobody else holds: were gocryptfs the last in the one with ext4, ext4's last pages would wait for the very process
that is dying. So gocryptfs lives in the outer one, which has no ext4.
"""

import contextlib
import ctypes
import json
import os
import secrets
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_NOATIME, MS_REC, MS_PRIVATE = 2, 4, 1024, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_IO_FLUSHER = 1, 57
LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
AUTOCLEAR, DIRECT_IO = 4, 16
EXT4_IOC_SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2
MOUNTS_S = 10.0
MOST_TRIES = 100
LIBC: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


class Failed(Exception):
    """No disk here: {why}."""


def called(what: str, result: int) -> None:
    if result != 0:
        raise Failed(f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, place: str, kind: str, flags: int, words: str = "") -> None:
    result = LIBC.mount(source.encode(), place.encode(), kind.encode(), ctypes.c_ulong(flags), words.encode())
    called(f"mount {place}", result)


def alone() -> None:
    """A mount namespace of our own, from which nothing goes back."""
    called("unshare", LIBC.unshare(CLONE_NEWNS))
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def encrypting(program: str, cipher: Path, plain: Path) -> subprocess.Popen[bytes]:
    """gocryptfs under a new key, mounted."""

    def alike() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # It serves the kernel's writing: memory that it asks for must not wait for that very writing.
        LIBC.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)

    words = [program, "-fg", "-q", "-nosyslog", "-plaintextnames", "-masterkey", "stdin"]
    process = subprocess.Popen(
        [*words, str(cipher), str(plain)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=alike,
    )
    assert process.stdin is not None
    key = secrets.token_hex(32)
    process.stdin.write("-".join(key[at : at + 8] for at in range(0, 64, 8)).encode() + b"\n")
    process.stdin.close()
    until = time.monotonic() + MOUNTS_S
    while not plain.is_mount():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            assert process.stdout is not None
            raise Failed(f"gocryptfs: {process.stdout.read().decode(errors='replace').strip()[-200:]}")
        time.sleep(0.002)
    return process


def taken(file: Path, size: int) -> None:
    """All of it is taken now: a full disk of the machine is no broken one of the tenant's."""
    space = os.statvfs(file.parent)
    # Encrypted, each 4,096 bytes are 4,128.
    if space.f_bavail * space.f_frsize < size + size // 100:
        raise Failed(f"no space for {size} bytes")
    with file.open("wb") as it:
        # Not posix_fallocate: where a file system can't, that writes every block.
        if LIBC.fallocate(it.fileno(), 0, ctypes.c_long(0), ctypes.c_long(size)) != 0:
            os.truncate(it.fileno(), size)


def looped(file: Path) -> int:
    """A loop device over the file, as an open descriptor: it is gone when nobody has it open or mounted."""
    import fcntl  # Unix alone has it, and nodes elsewhere load this module

    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(MOST_TRIES):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            for flags in (AUTOCLEAR | DIRECT_IO, AUTOCLEAR):
                # struct loop_config: descriptor, block size, then loop_info64 with its flags at 52 bytes.
                said = struct.pack("=II52xI", backing, 0, flags).ljust(304, b"\0")
                with contextlib.suppress(OSError):
                    fcntl.ioctl(device, LOOP_CONFIGURE, said)
                    return device
            os.close(device)  # Somebody else took it meanwhile.
        raise Failed("no loop device can be had")
    finally:
        os.close(control)
        os.close(backing)


def formatted(device: str, program: str = "mkfs.ext4") -> None:
    # Nothing of it is to outlive the machine's next start: no journal, nothing reserved, tables written when they are used.
    words = [program, "-q", "-F", "-O", "^has_journal", "-m", "0"]
    words += ["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", device]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{program}: {done.stderr.decode(errors='replace').strip()[-200:]}")


def prepare(folder: Path, size: int, place: str, gocryptfs: str) -> subprocess.Popen[bytes]:
    """All of it, mounted."""
    cipher, plain = folder / "cipher", folder / "plain"
    for it in (cipher, plain):
        it.mkdir(mode=0o700)
    alone()
    process = encrypting(gocryptfs, cipher, plain)
    alone()
    taken(plain / "disk", size)
    device = looped(plain / "disk")
    try:
        name = f"/dev/loop{os.minor(os.fstat(device).st_rdev)}"
        formatted(name)
        mount(name, place, "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, "barrier=0")
    finally:
        os.close(device)
    Path(place, "lost+found").rmdir()
    return process


def gone(place: str, process: subprocess.Popen[bytes]) -> None:
    """Key first: what wasn't written yet never will be."""
    import fcntl  # Unix alone has it, and nodes elsewhere load this module

    with contextlib.suppress(OSError):
        disk = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):
            fcntl.ioctl(disk, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        os.close(disk)
    process.kill()
    process.wait()
    LIBC.umount2(place.encode(), MNT_DETACH)


def say(**said: object) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main(folder: str, size: str, place: str, gocryptfs: str, parent: str) -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return
    try:
        process = prepare(Path(folder), int(size), place, gocryptfs)
    except (Failed, OSError) as error:
        say(said="failed", why=str(error))
        return
    say(said="ready", cipher=process.pid)
    ended = os.pidfd_open(process.pid)
    readable, _, _ = select.select([sys.stdin, ended], [], [])
    if ended in readable:
        say(said="died", why="gocryptfs ended")
        select.select([sys.stdin], [], [])
    gone(place, process)


if __name__ == "__main__":
    main(*sys.argv[1:])
