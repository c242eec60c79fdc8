"""The shell without SSH: a real terminal for who holds the token, nothing for others, and an end to every session."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterai.work.cluster.adapters.terminal import NoShell, Terminal
from clusterai.work.cluster.inside import shell
from tests.ports import free_port

TOKEN = bytes(range(32))


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    number = free_port()
    (tmp_path / "token").write_text(TOKEN.hex())
    command = [sys.executable, shell.__file__, "127.0.0.1", str(number), str(tmp_path / "token")]
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PS1": ""}
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    while True:
        assert server.poll() is None
        try:
            socket.create_connection(("127.0.0.1", number), 1).close()
            break
        except ConnectionRefusedError:
            continue
    yield number
    server.kill()
    _, said = server.communicate()
    assert said == ""


async def shown(terminal: Terminal) -> str:
    seen = b""
    async with asyncio.timeout(120):
        while data := await terminal.show():
            seen += data
    return seen.decode(errors="replace")


def test_a_shell_is_a_terminal_with_an_end(port: int):
    """What is typed is run, the window has the size that was told, and the exit code comes back."""

    async def play() -> None:
        async with await Terminal.open("127.0.0.1", TOKEN, port) as it:
            it.resize(33, 99)
            it.write(b"echo $((6*7))-it; stty size; exit 3\n")
            seen = await shown(it)
            assert "42-it" in seen
            assert "33 99" in seen
            assert it.code == 3

    asyncio.run(play())


def test_what_runs_on_behind_does_not_keep_a_session(port: int):
    """A session ends with its shell, though a program in the background holds the terminal still."""

    async def play() -> None:
        async with await Terminal.open("127.0.0.1", TOKEN, port) as it:
            it.write(b"trap '' HUP; sleep 600 & echo $((6*7))-it $!-pid; exit 4\n")
            seen = await shown(it)
            assert "42-it" in seen
            assert it.code == 4
            os.kill(int(seen.split("42-it ")[1].split("-pid")[0]), signal.SIGKILL)

    asyncio.run(play())


def test_who_lacks_the_token_gets_nothing(port: int):
    """Another token ends the session before anything is run, and nonsense after the login does too."""

    async def play() -> None:
        async with await Terminal.open("127.0.0.1", bytes(32), port) as it:
            it.write(b"echo $((6*7))-it\n")
            with pytest.raises(NoShell):
                await shown(it)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(shell.proof(TOKEN.hex().encode(), await reader.readexactly(shell.NONCE_BYTES)))
        writer.write(shell.FRAME.pack(b"d", 65_535))
        async with asyncio.timeout(120):
            seen = await reader.read()
        assert b"42-it" not in seen
        writer.close()

    asyncio.run(play())


def test_sessions_are_counted_and_given_back(port: int):
    """Eight at a time: the ninth is turned away, and let in when one has left."""

    async def play() -> None:
        held = [await Terminal.open("127.0.0.1", TOKEN, port) for _ in range(shell.MOST_SESSIONS)]
        for it in held:
            it.write(b"echo $((6*7))-it\n")
            while b"42-it" not in await it.show():
                pass
        with pytest.raises(NoShell):
            await Terminal.open("127.0.0.1", TOKEN, port)
        held[0].write(b"exit\n")
        await shown(held[0])
        async with asyncio.timeout(120):
            while True:
                try:
                    again = await Terminal.open("127.0.0.1", TOKEN, port)
                    break
                except NoShell:
                    await asyncio.sleep(0)
        async with again:
            again.write(b"exit 5\n")
            await shown(again)
            assert again.code == 5
        for it in held:
            async with it:
                pass

    asyncio.run(play())
