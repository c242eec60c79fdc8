"""Links on loopback: round trip, frames a second and handshakes, on asyncio's loop and on uvloop.

    python bench/link.py

Both ends live in one thread and TLS is on, so one core does the work of two machines.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median, quantiles

import uvloop

from clusterai.protocol.ids import Address, Role
from clusterai.protocol.messages import Cancel, Frame, Tokens
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.adapters.certificate import certificate
from clusterai.runtime.adapters.link import LinkClient, LinkServer
from clusterai.runtime.core.greeting import Identity

ROUND_TRIPS, FRAMES, HANDSHAKES = 3_000, 30_000, 20
NETWORK = network_domain(31415, Address(bytes(20)))
HOST, CALLER = Key(b"h" * 32), Key(b"c" * 32)
ECHOED, ONE_WAY = Cancel(bytes(32)), Tokens(bytes(32), 5, (123,), (), ())


def trust(hot: Address, _: Role) -> Address:
    """Everyone is their own owner."""
    return hot


def ignore(_: Address, __: object) -> None:
    pass


async def measure(name: str, folder: Path) -> None:
    came, all_came, wanted = 0, asyncio.Event(), 0

    def at_host(peer: Address, frame: Frame) -> None:
        nonlocal came
        if isinstance(frame, Cancel):
            server.send(peer, frame)
        elif isinstance(frame, Tokens):
            came += 1
            if came == wanted:
                all_came.set()

    up, echoed = asyncio.Event(), asyncio.Event()

    def at_caller(_: Address, frame: Frame) -> None:
        if isinstance(frame, Cancel):
            echoed.set()

    def is_up(_: Address, __: Role) -> None:
        up.set()

    me = Identity(HOST.address, Role.GATEWAY, NETWORK, HOST.sign)
    server = LinkServer("127.0.0.1", 0, me, certificate(folder), trust, ignore, ignore, at_host)
    await server.start()
    url = f"wss://127.0.0.1:{server.port}/"

    def caller() -> LinkClient:
        own = Identity(CALLER.address, Role.PROVIDER, NETWORK, CALLER.sign)
        return LinkClient({HOST.address: url}, own, trust, is_up, ignore, at_caller)

    handshakes: list[float] = []
    for _ in range(HANDSHAKES):
        up.clear()
        began = time.perf_counter()
        running = asyncio.create_task(caller().run())
        await up.wait()
        handshakes.append(time.perf_counter() - began)
        running.cancel()
        await asyncio.wait([running])
    up.clear()
    client = caller()
    running = asyncio.create_task(client.run())
    await up.wait()

    trips: list[float] = []
    for _ in range(ROUND_TRIPS):
        echoed.clear()
        began = time.perf_counter()
        client.send(HOST.address, ECHOED)
        await echoed.wait()
        trips.append(time.perf_counter() - began)

    wanted = FRAMES
    began = time.perf_counter()
    for number in range(FRAMES):
        client.send(HOST.address, ONE_WAY)
        if number % 64 == 0:
            await client.drained(HOST.address)
            await asyncio.sleep(0)
    await all_came.wait()
    rate = FRAMES / (time.perf_counter() - began)
    print(
        f"{name:8} round trip p50 {median(trips) * 1e6:4.0f} us, p99 {quantiles(trips, n=100)[98] * 1e6:4.0f} us; "
        f"{rate:7,.0f} frames/s one way; handshake {median(handshakes) * 1e3:.1f} ms"
    )
    running.cancel()
    await server.close()


def main() -> None:
    loops: tuple[tuple[str, Callable[[], asyncio.AbstractEventLoop]], ...] = (
        ("asyncio", asyncio.new_event_loop),
        ("uvloop", uvloop.new_event_loop),
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, new_loop in loops:
            work: Coroutine[object, object, None] = measure(name, Path(folder))
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(work)


if __name__ == "__main__":
    main()
