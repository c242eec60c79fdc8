"""The renter's end of a cluster's shell: one program's output, or a terminal of one's own. Its other end is `inside/shell.py`."""

import asyncio
import contextlib
import os
import shutil
import signal
import termios
import tty
from types import TracebackType

from clusterai.work.cluster.inside.shell import MOST_FRAME, NONCE_BYTES, SIZE, frame, proof, read_frame
from clusterai.work.cluster.spec import SHELL_PORT

CONNECTS_S = 10.0


class NoShell(Exception):
    """No shell there: {why}. Only members of the lease's mesh who hold its token get one, eight at a time on a machine."""


class Terminal:
    """A session; an asynchronous context manager. Made by `open`.

    Args of `open`:
        address: of the machine in the mesh.
        token: of the lease.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.code: int | None = None

    @classmethod
    async def open(cls, address: str, token: bytes, port: int = SHELL_PORT) -> "Terminal":
        """
        Raises:
            NoShell.
        """
        writer = None
        try:
            async with asyncio.timeout(CONNECTS_S):
                reader, writer = await asyncio.open_connection(address, port, limit=2 * MOST_FRAME)
                writer.write(proof(token.hex().encode(), await reader.readexactly(NONCE_BYTES)))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            if writer is not None:
                writer.close()
            raise NoShell(f"no shell at {address}:{port} ({str(error) or 'too slow'})") from None
        return cls(reader, writer)

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), MOST_FRAME):
            self._writer.write(frame(b"d", data[at : at + MOST_FRAME]))

    def resize(self, rows: int, columns: int) -> None:
        self._writer.write(frame(b"r", SIZE.pack(rows, columns)))

    async def show(self) -> bytes:
        """What was shown next; empty at the end, and then `code` is the exit code.

        Raises:
            NoShell: refused, or cut off.
        """
        try:
            kind, content = await read_frame(self._reader)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            raise NoShell(
                "the machine closed the session: a wrong token, too many sessions, or it is gone"
            ) from None
        if kind == b"d":
            return content
        if kind != b"x" or len(content) != 1:
            raise NoShell("the machine doesn't speak as a shell does")
        self.code = content[0]
        return b""

    async def __aenter__(self) -> "Terminal":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def attach(terminal: Terminal, keyboard: int = 0, screen: int = 1) -> int:
    """Join this process's own terminal to it, until it ends: the exit code.

    Raises:
        NoShell.
    """
    loop = asyncio.get_running_loop()

    def resized() -> None:
        columns, rows = shutil.get_terminal_size()
        terminal.resize(rows, columns)

    def typed() -> None:
        if data := os.read(keyboard, MOST_FRAME):
            terminal.write(data)
        else:
            loop.remove_reader(keyboard)
            terminal.write(b"\x04")

    before = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None
    if before is not None:
        tty.setraw(keyboard)
        resized()
        loop.add_signal_handler(signal.SIGWINCH, resized)
    loop.add_reader(keyboard, typed)
    try:
        while data := await terminal.show():
            os.write(screen, data)
    finally:
        loop.remove_reader(keyboard)
        if before is not None:
            loop.remove_signal_handler(signal.SIGWINCH)
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
    assert terminal.code is not None
    return terminal.code
