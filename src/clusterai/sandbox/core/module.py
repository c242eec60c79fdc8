"""A WASM module read just far enough to know whether its state can be seen, and opened so that it can.

Between two steps all that a module remembers must lie where a host can read and restore it: in its memory and its
mutable globals. Compilers hide globals (the stack pointer, above all), so an export is added for each. What could
remember anything else is refused: instructions that change tables or drop segments, and several memories.

Source: WebAssembly 2.0, chapter 5 (binary format). The module is validated in full by wasmtime afterwards.
"""

import msgspec

from clusterai.sandbox.core.spec import MiB

MAX_MODULE_BYTES = 64 * MiB
MAX_SCANNED_BYTES = 16 * MiB
GLOBAL = "clusterai:global:"
MEMORY = "memory"
PAGE = 64 * 1024
WASI = "wasi_snapshot_preview1"

_IMPORT, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _CODE = 2, 4, 5, 6, 7, 10
_KINDS = ("function", "table", "memory", "global")


class BadModule(ValueError):
    """Not a module that can be run here: {why}."""


class Module(msgspec.Struct, frozen=True, kw_only=True):
    imports: tuple[tuple[str, str], ...]
    exports: dict[str, tuple[str, int]]
    """Name to kind and index."""
    globals_: tuple[tuple[int, bool], ...]
    """Type byte and mutability of each global defined here."""
    memories: int
    least_memory_bytes: int
    unseen: tuple[str, ...]
    """Why its state can't be seen; empty if it can."""


class _Reader:
    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def byte(self) -> int:
        if self.at >= self.end:
            raise BadModule("it ends in the middle")
        self.at += 1
        return self.data[self.at - 1]

    def u32(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= 35:
                raise BadModule("a number is too long")
        if value >= 1 << 32:
            raise BadModule("a number is too large")
        return value

    def skip_leb(self) -> None:
        for _ in range(10):
            if self.byte() < 0x80:
                return
        raise BadModule("a number is too long")

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise BadModule("it ends in the middle")
        self.at += size
        return self.data[self.at - size : self.at]

    def name(self) -> str:
        try:
            return self.take(self.u32()).decode()
        except UnicodeDecodeError:
            raise BadModule("a name is not UTF-8") from None


def sections(data: bytes) -> list[tuple[int, int, int]]:
    """(id, start, end) of each section's body.

    Raises: BadModule.
    """
    if len(data) > MAX_MODULE_BYTES:
        raise BadModule(f"it has {len(data)} bytes, the limit is {MAX_MODULE_BYTES}")
    if data[:8] != b"\0asm\1\0\0\0":
        raise BadModule("it doesn't begin like a WASM 1 module")
    found: list[tuple[int, int, int]] = []
    reader = _Reader(data, 8, len(data))
    while reader.at < reader.end:
        kind, size = reader.byte(), reader.u32()
        start = reader.at
        reader.take(size)
        found.append((kind, start, reader.at))
    return found


def read(data: bytes) -> Module:
    """Raises: BadModule."""
    imports: list[tuple[str, str]] = []
    exports: dict[str, tuple[str, int]] = {}
    globals_: list[tuple[int, bool]] = []
    memories = least = 0
    unseen: list[str] = []
    for kind, start, end in sections(data):
        body = _Reader(data, start, end)
        if kind == _IMPORT:
            for _ in range(body.u32()):
                imports.append((body.name(), body.name()))
                if body.byte() != 0:
                    raise BadModule(f"it imports {imports[-1]}, which is no function")
                body.u32()
        elif kind == _MEMORY:
            for _ in range(body.u32()):
                memories += 1
                flags = body.byte()
                least += body.u32() * PAGE
                if flags & 1:
                    body.u32()
                if flags > 1:
                    raise BadModule("its memory is shared or 64 bit")
        elif kind == _GLOBAL:
            for _ in range(body.u32()):
                globals_.append((body.byte(), body.byte() == 1))
                _skip_expression(body)
        elif kind == _EXPORT:
            for _ in range(body.u32()):
                name, what, index = body.name(), body.byte(), body.u32()
                exports[name] = (_KINDS[what] if what < len(_KINDS) else "other", index)
        elif kind == _CODE:
            unseen += _scan(body)
    if memories > 1:
        unseen.append("it has several memories")
    if memories and exports.get(MEMORY, ("", 0))[0] != "memory":
        unseen.append(f"its memory is not exported as {MEMORY!r}")
    for kind, mutable in globals_:
        if mutable and kind not in (0x7F, 0x7E, 0x7D, 0x7C):
            unseen.append("a mutable global is no number")
    return Module(
        imports=tuple(imports),
        exports=exports,
        globals_=tuple(globals_),
        memories=memories,
        least_memory_bytes=least,
        unseen=tuple(dict.fromkeys(unseen)),
    )


def _skip_expression(body: _Reader) -> None:
    while (op := body.byte()) != 0x0B:
        _skip_immediates(body, op)


def opened(data: bytes) -> bytes:
    """The same module with every mutable global exported as `clusterai:global:N`.

    Raises: BadModule, if it has no export section.
    """
    module = read(data)
    names = [index for index, (_, mutable) in enumerate(module.globals_) if mutable]
    for kind, start, end in sections(data):
        if kind != _EXPORT:
            continue
        body = _Reader(data, start, end)
        count = body.u32()
        entries = data[body.at : end]
        for index in names:
            name = f"{GLOBAL}{index}".encode()
            entries += _leb(len(name)) + name + b"\3" + _leb(index)
        made = _leb(count + len(names)) + entries
        # The size in front of the section's body is rewritten with it.
        before = data[: start - _size_length(data, start, end - start)]
        return before + _leb(len(made)) + made + data[end:]
    raise BadModule("it exports nothing")


def _leb(value: int) -> bytes:
    made = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        made.append(low | (0x80 if value else 0))
        if not value:
            return bytes(made)


def _size_length(data: bytes, start: int, size: int) -> int:
    """How many bytes the size before `start` takes; it may be padded, so it is read backwards."""
    for length in range(1, 6):
        reader = _Reader(data, start - length, start)
        try:
            if reader.u32() == size and reader.at == start:
                return length
        except BadModule:
            continue
    raise BadModule("a section has no size")


_CHANGES = {
    9: "data.drop",
    12: "table.init",
    13: "elem.drop",
    14: "table.copy",
    15: "table.grow",
    17: "table.fill",
}


def _scan(body: _Reader) -> list[str]:
    """Which instructions of the code keep state where a host can't see it."""
    if body.end - body.at > MAX_SCANNED_BYTES:
        return [f"its code is longer than {MAX_SCANNED_BYTES} bytes"]
    found: list[str] = []
    for _ in range(body.u32()):
        size = body.u32()
        code = _Reader(body.data, body.at, body.at + size)
        body.take(size)
        for _ in range(code.u32()):
            code.u32()
            code.byte()
        while code.at < code.end:
            op = code.byte()
            if op == 0x26:
                found.append("it uses table.set")
            elif op == 0xFC:
                at = code.at
                if (name := _CHANGES.get(code.u32())) is not None:
                    found.append(f"it uses {name}")
                code.at = at
            _skip_immediates(code, op)
    return found


def _skip_immediates(code: _Reader, op: int) -> None:
    if op in (0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, 0xD1) or 0x45 <= op <= 0xC4:
        return
    if op in (0x02, 0x03, 0x04, 0x0C, 0x0D, 0x10, 0xD0, 0xD2, 0x41, 0x42) or 0x20 <= op <= 0x26:
        code.skip_leb()
    elif op in (0x3F, 0x40):
        code.byte()
    elif 0x28 <= op <= 0x3E or op == 0x11:
        code.u32()
        code.u32()
    elif op == 0x43:
        code.take(4)
    elif op == 0x44:
        code.take(8)
    elif op == 0x0E:
        for _ in range(code.u32() + 1):
            code.u32()
    elif op == 0x1C:
        code.take(code.u32())
    elif op == 0xFC:
        _skip_bulk(code, code.u32())
    elif op == 0xFD:
        _skip_vector(code, code.u32())
    else:
        raise BadModule(f"instruction {op:#04x} is of a proposal that is switched off here")


def _skip_bulk(code: _Reader, sub: int) -> None:
    if sub <= 7:
        return
    if sub > 17:
        raise BadModule(f"instruction 0xfc {sub} is of a proposal that is switched off here")
    for _ in range(2 if sub in (8, 10, 12, 14) else 1):
        code.u32()


def _skip_vector(code: _Reader, sub: int) -> None:
    if sub <= 11 or 84 <= sub <= 93:
        code.u32()
        code.u32()
    if sub in (12, 13):
        code.take(16)
    if 21 <= sub <= 34 or 84 <= sub <= 91:
        code.byte()
    if sub > 255:
        raise BadModule("relaxed vector instructions differ between machines and are switched off here")
