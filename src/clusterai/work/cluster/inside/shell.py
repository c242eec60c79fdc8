"""A shell without SSH: terminals on the head or any machine of the cluster, over the mesh, for who holds the lease's token.

    python shell.py ADDRESS PORT TOKENFILE

    server -> 32 random bytes
    client -> 32 bytes: HMAC-SHA256(key = token, "clusterai shell" + those bytes)
    then both ways frames: kind (1 byte), length (2 bytes, big-endian), content
        d  what is typed, and what is shown            r  rows and columns, 2 bytes each
        x  the end, from the server: exit code, 1 byte

The mesh encrypts it and says who is at the other end; the token keeps out other programs on the renter's machine. Standard library only.
The client's part is `work/cluster/adapters/terminal.py`.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import os
import pty
import shutil
import signal
import struct
import sys
import termios
from pathlib import Path

NONCE_BYTES = 32
MOST_FRAME = 1 << 15
MOST_SESSIONS = 8
LOGIN_S = 5.0
FRAME = struct.Struct(">cH")
SIZE = struct.Struct(">HH")


def proof(token: bytes, nonce: bytes) -> bytes:
    """What shows that one holds the token."""
    return hmac.new(token, b"clusterai shell" + nonce, hashlib.sha256).digest()


def frame(kind: bytes, content: bytes) -> bytes:
    return FRAME.pack(kind, len(content)) + content


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """
    Raises:
        asyncio.IncompleteReadError: the other side is gone.
        ValueError: a frame too large.
    """
    kind, length = FRAME.unpack(await reader.readexactly(FRAME.size))
    if length > MOST_FRAME:
        raise ValueError("a frame too large")
    return kind, await reader.readexactly(length)


class Server:
    def __init__(self, token: bytes) -> None:
        self._token = token
        self._sessions = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._sessions >= MOST_SESSIONS:
                return
            self._sessions += 1
            try:
                if await self._known(reader, writer):
                    await self._session(reader, writer)
            finally:
                self._sessions -= 1
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _known(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        nonce = os.urandom(NONCE_BYTES)
        writer.write(nonce)
        async with asyncio.timeout(LOGIN_S):
            await writer.drain()
            shown = await reader.readexactly(NONCE_BYTES)
        return hmac.compare_digest(shown, proof(self._token, nonce))

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shell = shutil.which("bash") or "/bin/sh"
        pid, master = pty.fork()
        if pid == 0:
            with contextlib.suppress(OSError):
                os.chdir(os.environ.get("HOME", "/"))
            try:
                os.execv(shell, [shell, "-i"])  # noqa: S606
            finally:
                os._exit(127)
        os.set_blocking(master, False)
        shown = asyncio.create_task(self._show(master, writer))
        try:
            typed, ended = asyncio.create_task(self._type(reader, master)), asyncio.create_task(_ended(pid))
            await asyncio.wait([shown, typed, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                # What it started in the background may hold the terminal for ever; what was shown so far is shown.
                shown.cancel()
                _rest(master, writer)
            typed.cancel()
            ended.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGHUP)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            shown.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shown
            os.close(master)
        code = os.waitstatus_to_exitcode(status)
        writer.write(frame(b"x", bytes([code if 0 <= code < 256 else 128 + (-code) % 128])))
        await writer.drain()

    async def _type(self, reader: asyncio.StreamReader, master: int) -> None:
        while True:
            kind, content = await read_frame(reader)
            if kind == b"d":
                while content:
                    try:
                        content = content[os.write(master, content) :]
                    except BlockingIOError:
                        await asyncio.sleep(0.01)  # It doesn't read what is typed.
            elif kind == b"r":
                rows, columns = SIZE.unpack(content)
                fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            else:
                raise ValueError("a frame of no known kind")

    async def _show(self, master: int, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ready = loop.create_future()
            loop.add_reader(master, lambda it=ready: it.done() or it.set_result(None))
            try:
                await ready
            finally:
                loop.remove_reader(master)
            try:
                data = os.read(master, MOST_FRAME)
            except BlockingIOError:
                continue
            except OSError:
                return  # The shell is gone, and all that had its terminal.
            if not data:
                return
            writer.write(frame(b"d", data))
            await writer.drain()  # Who doesn't read stops what writes.


async def _ended(pid: int) -> None:
    loop = asyncio.get_running_loop()
    descriptor, over = os.pidfd_open(pid), loop.create_future()
    loop.add_reader(descriptor, lambda: over.done() or over.set_result(None))
    try:
        await over
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _rest(master: int, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        for _ in range(64):
            if data := os.read(master, MOST_FRAME):
                writer.write(frame(b"d", data))


async def main(address: str, port: int, token: bytes) -> None:
    server = await asyncio.start_server(Server(token).serve, address, port, limit=2 * MOST_FRAME)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).read_text().strip().encode()))
