"""WASI preview 1 as a pure machine: files in memory, a clock that only calls move, randomness from the seed.

Nothing here can reach the host, since nothing here has a host to reach: that is what makes a run both safe and the
same on every machine. Time passes one microsecond a call, and a sleep is over at once, at its later time.

    /in     the task's inputs, read-only        (all three also as /job/in, /job/out, /job/tmp)
    /out    what is kept
    /tmp    what is not

Links, sockets and devices don't exist. Source: WASI preview 1, `wasi_snapshot_preview1.witx`.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal, Protocol

import msgspec
from blake3 import blake3
from msgspec import Meta

from clusterai.sandbox.core.spec import MiB, Task

OK, ACCES, BADF, EXIST, FAULT, INVAL, ISDIR, MFILE = 0, 2, 8, 20, 21, 28, 31, 33
NOENT, NOSPC, NOSYS, NOTDIR, NOTEMPTY, NOTSUP, ROFS, SPIPE, NOTCAPABLE = 44, 51, 52, 54, 55, 58, 69, 70, 76
NAMETOOLONG, ILSEQ = 37, 25

STEP_NS = 1000
MOST_AT_ONCE = 16 * MiB
"""Of bytes in one call; programs take what they get and ask again."""
MOST_VECTORS = 1024
MOST_SUBSCRIPTIONS = 1024
U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF

_DIR, _FILE, _CHARS = 3, 4, 2
_APPEND = 1
_CREAT, _DIRECTORY, _EXCL, _TRUNC = 1, 2, 4, 8
_RIGHT_READ, _RIGHT_WRITE = 1 << 1, 1 << 6


class Memory(Protocol):
    """A module's memory; both raise Fault beyond its end."""

    def read(self, at: int, size: int) -> bytes: ...
    def write(self, at: int, data: bytes) -> None: ...


class Fault(IndexError):
    """A pointer beyond the module's memory."""


class Exit(BaseException):
    """The module called proc_exit."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Errno(Exception):
    def __init__(self, number: int) -> None:
        self.number = number


Kind = Literal["stdin", "stdout", "stderr", "dir", "file"]


Count = Annotated[int, Meta(ge=0, le=2**62)]
"""Far beyond what fuel can reach, and far from where 64 bits end: a forged state must not make the host overflow."""


class Descriptor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    kind: Kind
    path: str = ""
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    flags: Annotated[int, Meta(ge=0, le=1)] = 0
    reads: bool = True
    writes: bool = True


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that the host side of a module remembers: part of its state, and restored with it."""

    clock_ns: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    random_at: Count = 0
    files: dict[str, bytes] = {}
    folders: tuple[str, ...] = ("out", "tmp")
    descriptors: tuple[tuple[Annotated[int, Meta(ge=0, le=2**31)], Descriptor], ...] = (
        (0, Descriptor("stdin", writes=False)),
        (1, Descriptor("stdout", reads=False)),
        (2, Descriptor("stderr", reads=False)),
        (3, Descriptor("dir", "")),
    )
    log: Annotated[bytes, Meta(min_length=32, max_length=32)] = bytes(32)
    """A hash chain over all that was printed."""
    printed: Count = 0
    next_descriptor: Annotated[int, Meta(ge=0, le=2**31)] = 4


class _Open:
    """A descriptor while it is used."""

    def __init__(self, found: Descriptor) -> None:
        self.kind: Kind = found.kind
        self.path, self.offset = found.path, found.offset
        self.flags, self.reads, self.writes = found.flags, found.reads, found.writes

    def frozen(self) -> Descriptor:
        return Descriptor(self.kind, self.path, self.offset, self.flags, self.reads, self.writes)


class Wasi:
    """Answers a module's calls. `touched` counts the bytes of the last call, so that they can be charged for."""

    def __init__(
        self,
        task: Task,
        inputs: dict[str, bytes],
        system: System | None = None,
        on_log: Callable[[Literal["stdout", "stderr"], bytes], None] | None = None,
    ) -> None:
        self._task = task
        self._inputs = inputs
        self._on_log = on_log
        self._folders = {"": None, "in": None} | {
            "in/" + "/".join(name.split("/")[:depth]): None
            for name in inputs
            for depth in range(1, name.count("/") + 1)
        }
        self._random = blake3(
            task.seed.to_bytes(8, "big"), derive_key_context="clusterai 2026 sandbox random_get"
        )
        was = system if system is not None else System(clock_ns=task.clock_s * 10**9)
        self._clock_ns, self._random_at = was.clock_ns, was.random_at
        self._log, self._printed = was.log, was.printed
        self._made = dict.fromkeys(was.folders)
        self._open = {number: _Open(found) for number, found in was.descriptors}
        self._next = was.next_descriptor
        # As bytearrays while it runs, or appending to a file byte by byte would take its length squared.
        self._files = {path: bytearray(data) for path, data in was.files.items()}
        self._used = sum(len(data) for data in self._files.values())
        self.touched = 0
        self.over = False
        """It printed more than it may; the caller ends it."""

    def snapshot(self) -> System:
        return System(
            clock_ns=self._clock_ns,
            random_at=self._random_at,
            files={path: bytes(data) for path, data in sorted(self._files.items())},
            folders=tuple(sorted(self._made)),
            descriptors=tuple((number, found.frozen()) for number, found in sorted(self._open.items())),
            log=self._log,
            printed=self._printed,
            next_descriptor=self._next,
        )

    def outputs(self) -> dict[str, bytes]:
        return {
            path[4:]: bytes(data) for path, data in sorted(self._files.items()) if path.startswith("out/")
        }

    def call(self, name: str, memory: Memory, args: tuple[int, ...]) -> int:
        """One call by its name; its error number.

        Raises: Exit.
        """
        self.touched = 0
        self._clock_ns = min(self._clock_ns + STEP_NS, U64 >> 1)
        function, _ = FUNCTIONS[name]
        try:
            return function(self, memory, *args) or OK
        except _Errno as error:
            return error.number
        except Fault:
            return FAULT

    # -- arguments, time, chance --------------------------------------------------------------------------------------

    def _strings(self, memory: Memory, texts: list[bytes], pointers: int, buffer: int) -> None:
        for place, text in enumerate(texts):
            self._put(memory, (pointers + 4 * place) & U32, _u32(buffer))
            self._put(memory, buffer, text)
            buffer = (buffer + len(text)) & U32

    def _sizes(self, memory: Memory, texts: list[bytes], count: int, size: int) -> None:
        self._put(memory, count, _u32(len(texts)))
        self._put(memory, size, _u32(sum(map(len, texts))))

    @property
    def _args(self) -> list[bytes]:
        return [text.encode() + b"\0" for text in (self._task.argv or ("main",))]

    @property
    def _environment(self) -> list[bytes]:
        return [f"{name}={value}".encode() + b"\0" for name, value in sorted(self._task.env.items())]

    def args_get(self, memory: Memory, pointers: int, buffer: int) -> None:
        self._strings(memory, self._args, pointers & U32, buffer & U32)

    def args_sizes_get(self, memory: Memory, count: int, size: int) -> None:
        self._sizes(memory, self._args, count & U32, size & U32)

    def environ_get(self, memory: Memory, pointers: int, buffer: int) -> None:
        self._strings(memory, self._environment, pointers & U32, buffer & U32)

    def environ_sizes_get(self, memory: Memory, count: int, size: int) -> None:
        self._sizes(memory, self._environment, count & U32, size & U32)

    def clock_res_get(self, memory: Memory, _clock: int, result: int) -> None:
        self._put(memory, result, _u64(STEP_NS))

    def clock_time_get(self, memory: Memory, _clock: int, _precision: int, result: int) -> None:
        self._put(memory, result, _u64(self._clock_ns))

    def random_get(self, memory: Memory, buffer: int, size: int) -> None:
        at, left = buffer & U32, size & U32
        memory.read(at + left, 0)
        while left:
            part = min(left, MiB)
            self._put(memory, at, self._random.digest(part, seek=self._random_at))
            self._random_at += part
            at, left = at + part, left - part

    def sched_yield(self, _memory: Memory) -> None:
        pass

    def proc_exit(self, _memory: Memory, code: int) -> None:
        raise Exit(code & U32)

    def poll_oneoff(self, memory: Memory, asked: int, events: int, count: int, stored: int) -> None:
        """Of clocks, the first one due is; the time becomes its time. Files are always ready."""
        asked, events, count = asked & U32, events & U32, count & U32
        if not 0 < count <= MOST_SUBSCRIPTIONS:
            raise _Errno(INVAL)
        ready: list[tuple[int, bytes, int]] = []
        for place in range(count):
            raw = self._get(memory, asked + 48 * place, 48)
            tag = raw[8]
            due = 0
            if tag == 0:
                timeout, flags = _int(raw[24:32]), _int(raw[40:42])
                due = timeout if flags & 1 else self._clock_ns + timeout
            elif tag > 2:
                raise _Errno(INVAL)
            ready.append((due, raw[:8], tag))
        first = min(due for due, _, _ in ready)
        self._clock_ns = min(max(self._clock_ns, first), U64 >> 1)
        fired = [(user, tag) for due, user, tag in ready if due == first]
        for place, (user, tag) in enumerate(fired):
            self._put(memory, events + 32 * place, user + bytes([0, 0, tag]) + bytes(21))
        self._put(memory, stored, _u32(len(fired)))

    # -- descriptors --------------------------------------------------------------------------------------------------

    def _descriptor(self, number: int, *kinds: str) -> _Open:
        found = self._open.get(number & U32)
        if found is None:
            raise _Errno(BADF)
        if kinds and found.kind not in kinds:
            raise _Errno(NOTDIR if kinds == ("dir",) else ISDIR if found.kind == "dir" else SPIPE)
        return found

    def fd_close(self, _memory: Memory, number: int) -> None:
        self._descriptor(number)
        del self._open[number & U32]

    def fd_renumber(self, _memory: Memory, source: int, target: int) -> None:
        found = self._descriptor(source)
        self._descriptor(target)
        del self._open[source & U32]
        self._open[target & U32] = found

    def _nothing(self, _memory: Memory, number: int, *_: int) -> None:
        self._descriptor(number)

    def fd_fdstat_get(self, memory: Memory, number: int, result: int) -> None:
        found = self._descriptor(number)
        kind = {"dir": _DIR, "file": _FILE}.get(found.kind, _CHARS)
        rights = U64 if found.kind == "dir" else U64 & ~((1 << 2) | (1 << 5)) if kind == _CHARS else U64
        self._put(
            memory, result, bytes([kind, 0]) + _u32(found.flags)[:2] + bytes(4) + _u64(rights) + _u64(rights)
        )

    def fd_fdstat_set_flags(self, _memory: Memory, number: int, flags: int) -> None:
        self._descriptor(number).flags = flags & _APPEND

    def fd_prestat_get(self, memory: Memory, number: int, result: int) -> None:
        if number & U32 != 3:
            raise _Errno(BADF)
        self._put(memory, result, _u32(0) + _u32(1))

    def fd_prestat_dir_name(self, memory: Memory, number: int, path: int, size: int) -> None:
        if number & U32 != 3:
            raise _Errno(BADF)
        if size & U32 < 1:
            raise _Errno(NAMETOOLONG)
        self._put(memory, path, b"/")

    def fd_filestat_get(self, memory: Memory, number: int, result: int) -> None:
        found = self._descriptor(number)
        path = found.path if found.kind in ("dir", "file") else None
        self._put(memory, result, self._filestat(path))

    def fd_filestat_set_size(self, _memory: Memory, number: int, size: int) -> None:
        found = self._descriptor(number, "file")
        self._resize(found.path, size & U64)

    def fd_seek(self, memory: Memory, number: int, offset: int, whence: int, result: int) -> None:
        found = self._descriptor(number, "file")
        base = {0: 0, 1: found.offset, 2: len(self._content(found.path))}.get(whence & 0xFF)
        if base is None or not 0 <= base + offset <= U64 >> 1:
            raise _Errno(INVAL)
        found.offset = base + offset
        self._put(memory, result, _u64(found.offset))

    def fd_tell(self, memory: Memory, number: int, result: int) -> None:
        self._put(memory, result, _u64(self._descriptor(number, "file").offset))

    def _vectors(self, memory: Memory, vectors: int, count: int) -> Iterator[tuple[int, int]]:
        """Where to read or write, at most `MOST_AT_ONCE` bytes in all."""
        if count & U32 > MOST_VECTORS:
            raise _Errno(INVAL)
        table = self._get(memory, vectors, 8 * (count & U32))
        left = MOST_AT_ONCE
        for place in range(0, len(table), 8):
            at, size = _int(table[place : place + 4]), _int(table[place + 4 : place + 8])
            size = min(size, left)
            left -= size
            if size:
                yield at, size

    def _read(self, memory: Memory, path: str, offset: int, vectors: int, count: int) -> int:
        content, total = self._content(path), 0
        for at, size in self._vectors(memory, vectors, count):
            part = bytes(content[offset + total : offset + total + size])
            self._put(memory, at, part)
            total += len(part)
            if len(part) < size:
                break
        return total

    def fd_read(self, memory: Memory, number: int, vectors: int, count: int, result: int) -> None:
        found = self._descriptor(number)
        if not found.reads or found.kind == "dir":
            raise _Errno(ISDIR if found.kind == "dir" else BADF)
        total = 0 if found.kind == "stdin" else self._read(memory, found.path, found.offset, vectors, count)
        found.offset += total
        self._put(memory, result, _u32(total))

    def fd_pread(
        self, memory: Memory, number: int, vectors: int, count: int, offset: int, result: int
    ) -> None:
        found = self._descriptor(number, "file")
        if not found.reads:
            raise _Errno(BADF)
        self._put(memory, result, _u32(self._read(memory, found.path, offset & U64, vectors, count)))

    def _gather(self, memory: Memory, vectors: int, count: int) -> bytes:
        return b"".join([self._get(memory, at, size) for at, size in self._vectors(memory, vectors, count)])

    def fd_write(self, memory: Memory, number: int, vectors: int, count: int, result: int) -> None:
        found = self._descriptor(number)
        if not found.writes or found.kind == "dir":
            raise _Errno(ISDIR if found.kind == "dir" else BADF)
        data = self._gather(memory, vectors, count)
        if found.kind in ("stdout", "stderr"):
            self._print("stdout" if found.kind == "stdout" else "stderr", data)
        else:
            at = len(self._files.get(found.path, b"")) if found.flags & _APPEND else found.offset
            self._write(found.path, at, data)
            found.offset = at + len(data)
        self._put(memory, result, _u32(len(data)))

    def fd_pwrite(
        self, memory: Memory, number: int, vectors: int, count: int, offset: int, result: int
    ) -> None:
        found = self._descriptor(number, "file")
        if not found.writes:
            raise _Errno(BADF)
        data = self._gather(memory, vectors, count)
        self._write(found.path, offset & U64, data)
        self._put(memory, result, _u32(len(data)))

    def _print(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        self._printed += len(data)
        if self._printed > self._task.limits.output_bytes:
            self.over = True
        self._log = blake3(self._log + stream[3:4].encode() + blake3(data).digest()).digest()
        if self._on_log is not None and data:
            self._on_log(stream, data)

    def fd_readdir(
        self, memory: Memory, number: int, buffer: int, size: int, cookie: int, result: int
    ) -> None:
        path = self._descriptor(number, "dir").path
        entries = b""
        for place, (name, kind) in enumerate(self._list(path)[cookie & U64 :], cookie & U64):
            text = name.encode()
            entries += (
                _u64(place + 1) + _u64(self._inode(f"{path}/{name}")) + _u32(len(text)) + _u32(kind) + text
            )
            if len(entries) >= size & U32:
                break
        entries = entries[: size & U32]
        self._put(memory, buffer, entries)
        self._put(memory, result, _u32(len(entries)))

    # -- paths --------------------------------------------------------------------------------------------------------

    def _path(self, memory: Memory, number: int, at: int, size: int) -> str:
        """The plain path that is meant; one that would leave the root is not capable of it."""
        base = self._descriptor(number, "dir").path
        if size & U32 > 4096:
            raise _Errno(NAMETOOLONG)
        try:
            text = self._get(memory, at, size & U32).decode()
        except UnicodeDecodeError:
            raise _Errno(ILSEQ) from None
        if "\0" in text:
            raise _Errno(ILSEQ)
        parts: list[str] = []
        for part in [*base.split("/"), *text.split("/")]:
            if part == "..":
                if not parts:
                    raise _Errno(NOTCAPABLE)
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        if parts[:1] == ["job"]:
            parts = parts[1:]
        return "/".join(parts)

    def _is_folder(self, path: str) -> bool:
        return path in self._folders or path in self._made

    def _is_file(self, path: str) -> bool:
        return path in self._files or (path.startswith("in/") and path[3:] in self._inputs)

    def _content(self, path: str) -> bytes | bytearray:
        if path in self._files:
            return self._files[path]
        if path.startswith("in/") and path[3:] in self._inputs:
            return self._inputs[path[3:]]
        raise _Errno(NOENT)  # It was removed while open.

    def _writable(self, path: str) -> None:
        """Whether something may be made at `path`: its folder must be there, and ours to write."""
        parent = path.rpartition("/")[0]
        if not path.startswith(("out/", "tmp/")):
            raise _Errno(ROFS)
        if not self._is_folder(parent):
            raise _Errno(NOTDIR if self._is_file(parent) else NOENT)
        if len(path) > 1024:
            raise _Errno(NAMETOOLONG)

    def _make_room(self, bytes_: int, entries: int) -> None:
        limits = self._task.limits
        if self._used + bytes_ > limits.disk_bytes:
            raise _Errno(NOSPC)
        if entries and len(self._files) + len(self._made) + entries > limits.files:
            raise _Errno(NOSPC)

    def _resize(self, path: str, size: int) -> None:
        content = self._files.get(path)
        if content is None:
            raise _Errno(ROFS)
        grown = size - len(content)
        self._make_room(max(0, grown), 0)
        if grown > 0:
            self.touched += grown
            content.extend(bytes(grown))
        else:
            del content[size:]
        self._used += grown

    def _write(self, path: str, at: int, data: bytes) -> None:
        content = self._files.get(path)
        if content is None:
            raise _Errno(BADF)
        if at + len(data) > len(content):
            self._resize(path, at + len(data))
        content[at : at + len(data)] = data

    def _list(self, path: str) -> list[tuple[str, int]]:
        prefix = path + "/" if path else ""
        names: dict[str, int] = {}
        for folders in (self._folders, self._made):
            names |= {name[len(prefix) :]: _DIR for name in folders if name and name.startswith(prefix)}
        names |= {name[len(prefix) :]: _FILE for name in self._files if name.startswith(prefix)}
        names |= {
            f"in/{name}"[len(prefix) :]: _FILE for name in self._inputs if f"in/{name}".startswith(prefix)
        }
        self.touched += 64 * len(names)
        return [
            (".", _DIR),
            ("..", _DIR),
            *sorted((name, kind) for name, kind in names.items() if name and "/" not in name),
        ]

    @staticmethod
    def _inode(path: str) -> int:
        return int.from_bytes(blake3(path.strip("/").encode()).digest()[:7], "little")

    def _filestat(self, path: str | None) -> bytes:
        """`filestat`: no owner, no times but the start of the clock."""
        if path is None:
            kind, size = _CHARS, 0
        elif self._is_folder(path):
            kind, size = _DIR, 0
        else:
            kind, size = _FILE, len(self._content(path))
        time = _u64(self._task.clock_s * 10**9)
        inode = self._inode(path) if path is not None else 0
        return _u64(1) + _u64(inode) + bytes([kind]) + bytes(7) + _u64(1) + _u64(size) + time * 3

    def path_open(
        self,
        memory: Memory,
        number: int,
        _follow: int,
        at: int,
        size: int,
        how: int,
        rights: int,
        _: int,
        flags: int,
        result: int,
    ) -> None:
        path = self._path(memory, number, at, size)
        reads, writes = bool(rights & _RIGHT_READ), bool(rights & _RIGHT_WRITE)
        if len(self._open) >= self._task.limits.open_files:
            raise _Errno(MFILE)
        if self._is_folder(path):
            if how & _CREAT and how & _EXCL:
                raise _Errno(EXIST)
            if how & (_CREAT | _TRUNC) and not how & _DIRECTORY:
                raise _Errno(ISDIR)
            opened = _Open(Descriptor("dir", path))
        elif self._is_file(path):
            if how & _DIRECTORY:
                raise _Errno(NOTDIR)
            if how & _CREAT and how & _EXCL:
                raise _Errno(EXIST)
            if path not in self._files and (writes or how & _TRUNC):
                raise _Errno(ROFS)
            if how & _TRUNC:
                self._resize(path, 0)
            opened = _Open(Descriptor("file", path, 0, flags & _APPEND, reads, writes))
        elif how & _CREAT:
            self._writable(path)
            self._make_room(0, 1)
            self._files[path] = bytearray()
            opened = _Open(Descriptor("file", path, 0, flags & _APPEND, reads, writes))
        else:
            raise _Errno(NOENT)
        place = self._next
        self._put(memory, result, _u32(place))
        self._next += 1
        self._open[place] = opened

    def path_filestat_get(
        self, memory: Memory, number: int, _follow: int, at: int, size: int, result: int
    ) -> None:
        path = self._path(memory, number, at, size)
        if not self._is_folder(path) and not self._is_file(path):
            raise _Errno(NOENT)
        self._put(memory, result, self._filestat(path))

    def path_create_directory(self, memory: Memory, number: int, at: int, size: int) -> None:
        path = self._path(memory, number, at, size)
        if self._is_folder(path) or self._is_file(path):
            raise _Errno(EXIST)
        self._writable(path)
        self._make_room(0, 1)
        self._made[path] = None

    def path_remove_directory(self, memory: Memory, number: int, at: int, size: int) -> None:
        path = self._path(memory, number, at, size)
        if path not in self._made:
            raise _Errno(ROFS if self._is_folder(path) else NOTDIR if self._is_file(path) else NOENT)
        if len(self._list(path)) > 2:
            raise _Errno(NOTEMPTY)
        if path in ("out", "tmp"):
            raise _Errno(ACCES)
        del self._made[path]

    def path_unlink_file(self, memory: Memory, number: int, at: int, size: int) -> None:
        path = self._path(memory, number, at, size)
        if path not in self._files:
            raise _Errno(ROFS if self._is_file(path) else ISDIR if self._is_folder(path) else NOENT)
        self._used -= len(self._files.pop(path))

    def path_rename(
        self, memory: Memory, number: int, at: int, size: int, to: int, to_at: int, to_size: int
    ) -> None:
        """Files only, over another file or into an empty place."""
        source, target = self._path(memory, number, at, size), self._path(memory, to, to_at, to_size)
        if source not in self._files:
            raise _Errno(NOTSUP if self._is_folder(source) else ROFS if self._is_file(source) else NOENT)
        if self._is_folder(target):
            raise _Errno(ISDIR)
        self._writable(target)
        if source == target:
            return
        if target in self._files:
            self._used -= len(self._files[target])
        self._files[target] = self._files.pop(source)

    def _absent(self, _memory: Memory, *_: int) -> int:
        return NOTSUP

    def _get(self, memory: Memory, at: int, size: int) -> bytes:
        self.touched += size
        return memory.read(at & U32, size)

    def _put(self, memory: Memory, at: int, data: bytes) -> None:
        self.touched += len(data)
        memory.write(at & U32, data)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return (value & U64).to_bytes(8, "little")


def _int(data: bytes) -> int:
    return int.from_bytes(data, "little")


Function = Callable[..., int | None]

FUNCTIONS: dict[str, tuple[Function, str]] = {
    "args_get": (Wasi.args_get, "ii"),
    "args_sizes_get": (Wasi.args_sizes_get, "ii"),
    "environ_get": (Wasi.environ_get, "ii"),
    "environ_sizes_get": (Wasi.environ_sizes_get, "ii"),
    "clock_res_get": (Wasi.clock_res_get, "ii"),
    "clock_time_get": (Wasi.clock_time_get, "iIi"),
    "fd_advise": (Wasi._nothing, "iIIi"),  # pyright: ignore[reportPrivateUsage]
    "fd_allocate": (Wasi._absent, "iII"),  # pyright: ignore[reportPrivateUsage]
    "fd_close": (Wasi.fd_close, "i"),
    "fd_datasync": (Wasi._nothing, "i"),  # pyright: ignore[reportPrivateUsage]
    "fd_fdstat_get": (Wasi.fd_fdstat_get, "ii"),
    "fd_fdstat_set_flags": (Wasi.fd_fdstat_set_flags, "ii"),
    "fd_fdstat_set_rights": (Wasi._nothing, "iII"),  # pyright: ignore[reportPrivateUsage]
    "fd_filestat_get": (Wasi.fd_filestat_get, "ii"),
    "fd_filestat_set_size": (Wasi.fd_filestat_set_size, "iI"),
    "fd_filestat_set_times": (Wasi._nothing, "iIIi"),  # pyright: ignore[reportPrivateUsage]
    "fd_pread": (Wasi.fd_pread, "iiiIi"),
    "fd_prestat_get": (Wasi.fd_prestat_get, "ii"),
    "fd_prestat_dir_name": (Wasi.fd_prestat_dir_name, "iii"),
    "fd_pwrite": (Wasi.fd_pwrite, "iiiIi"),
    "fd_read": (Wasi.fd_read, "iiii"),
    "fd_readdir": (Wasi.fd_readdir, "iiiIi"),
    "fd_renumber": (Wasi.fd_renumber, "ii"),
    "fd_seek": (Wasi.fd_seek, "iIii"),
    "fd_sync": (Wasi._nothing, "i"),  # pyright: ignore[reportPrivateUsage]
    "fd_tell": (Wasi.fd_tell, "ii"),
    "fd_write": (Wasi.fd_write, "iiii"),
    "path_create_directory": (Wasi.path_create_directory, "iii"),
    "path_filestat_get": (Wasi.path_filestat_get, "iiiii"),
    "path_filestat_set_times": (Wasi._absent, "iiiiIIi"),  # pyright: ignore[reportPrivateUsage]
    "path_link": (Wasi._absent, "iiiiiii"),  # pyright: ignore[reportPrivateUsage]
    "path_open": (Wasi.path_open, "iiiiiIIii"),
    "path_readlink": (Wasi._absent, "iiiiii"),  # pyright: ignore[reportPrivateUsage]
    "path_remove_directory": (Wasi.path_remove_directory, "iii"),
    "path_rename": (Wasi.path_rename, "iiiiii"),
    "path_symlink": (Wasi._absent, "iiiii"),  # pyright: ignore[reportPrivateUsage]
    "path_unlink_file": (Wasi.path_unlink_file, "iii"),
    "poll_oneoff": (Wasi.poll_oneoff, "iiii"),
    "proc_exit": (Wasi.proc_exit, "i"),
    "proc_raise": (Wasi._absent, "i"),  # pyright: ignore[reportPrivateUsage]
    "sched_yield": (Wasi.sched_yield, ""),
    "random_get": (Wasi.random_get, "ii"),
    "sock_accept": (Wasi._absent, "iii"),  # pyright: ignore[reportPrivateUsage]
    "sock_recv": (Wasi._absent, "iiiiii"),  # pyright: ignore[reportPrivateUsage]
    "sock_send": (Wasi._absent, "iiiii"),  # pyright: ignore[reportPrivateUsage]
    "sock_shutdown": (Wasi._absent, "ii"),  # pyright: ignore[reportPrivateUsage]
}
"""Name to method and parameter types: i is i32, I is i64. All but proc_exit return an i32."""
