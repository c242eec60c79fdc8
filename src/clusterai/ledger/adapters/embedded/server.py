"""The chain as a process: HTTP in front, a block at least every `block_interval_s`, an orderly end on SIGTERM."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from clusterai.ledger.adapters.embedded.chain import Chain
from clusterai.ledger.adapters.embedded.genesis import Genesis
from clusterai.ledger.adapters.embedded.pool import Pool
from clusterai.ledger.adapters.embedded.rpc import MAX_BODY_BYTES, Rpc

JOURNAL = "chain.sqlite"


class ChainConfig(msgspec.Struct, frozen=True):
    """What the chain process must know."""

    data: Path
    """folder of the journal; made if it isn't there"""
    port: int = 8545
    """0: any free port"""
    host: str = "127.0.0.1"
    chain_id: int = 31415
    block_interval_s: float = 2.0
    """an empty block at least this often, so that deadlines pass and the beacon moves; 0: never"""
    genesis: Genesis = Genesis()
    """used once, where the folder holds no chain yet"""


class Server:
    """A chain that answers on a port while it is entered."""

    def __init__(self, config: ChainConfig, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        self._last_s = time.monotonic()
        self.chain = Chain(config.data / JOURNAL, config.chain_id, config.genesis, os.urandom(32), clock)
        self._pool = Pool(self.chain, self.stop)
        self._rpc = Rpc(self.chain, self._pool.submit, time.monotonic)
        self._runner: web.ServerRunner | None = None
        self._ticker: asyncio.Task[None] | None = None
        self.port = config.port

    async def __aenter__(self) -> "Server":
        self._runner = web.ServerRunner(web.Server(self._handle), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._config.host, self._config.port, backlog=1024)
        try:
            await site.start()
        except OSError:
            self.chain.close()
            raise
        self.port = self._runner.addresses[0][1]
        if self._config.block_interval_s:
            self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        assert self._runner is not None
        await self._runner.cleanup()
        self.chain.close()

    def stop(self, failure: BaseException | None = None) -> None:
        self._failure = self._failure or failure
        self._ended.set()

    async def wait(self) -> None:
        """Until `stop`; raises what made the chain unable to go on."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def _tick(self) -> None:
        """Empty blocks keep their own beat; a block with transactions in between doesn't delay them."""
        while True:
            await asyncio.sleep(self._config.block_interval_s)
            try:
                self.chain.mine_empty()
            except BaseException as error:
                self.stop(error)  # which is raised where it is waited for
                return

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405, text="POST JSON-RPC here\n", headers={"Allow": "POST"})
        body = await _read(request)
        if body is None:
            return web.Response(
                status=413, text=f"the body is over {MAX_BODY_BYTES} bytes: split the batch\n"
            )
        if self._failure is not None:
            # What the EVM holds by now was never made durable: nobody may see it.
            return web.Response(status=503, text="the chain can't go on\n")
        answer = await self._rpc.answer(body)
        return web.Response(body=answer, content_type="application/json")


async def _read(request: web.BaseRequest) -> bytes | None:
    """The body, or None where it is over the limit; never holds more than the limit."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


async def serve(config: ChainConfig, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` hears the port."""
    loop = asyncio.get_running_loop()
    server = Server(config)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, server.stop)
    async with server:
        ready(server.port)
        await server.wait()


def run_chain(config: ChainConfig, ready: Callable[[int], None] = lambda port: None) -> None:
    """The whole process: returns after SIGTERM.

    Raises:
        BusyJournal, DamagedJournal, WrongChain, BrokenGenesis, OSError (the port is taken; the disk is full).
    """
    try:
        from uvloop import run
    except ImportError:  # uvloop has no build for some platforms; asyncio serves there
        run = asyncio.run
    run(serve(config, ready))
