"""How long a client of vaults waits for a gateway that died, or whose machine is gone."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.sdk.vaults import ApiError, Unreachable, Vaults

REFUSAL = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: 60\r\n\r\n"
    b'{"type":"x","code":"bad_request","detail":"the second time"}'
)


class Dying:
    """A gateway that takes the first order, is killed when `spent_s` have passed, and is there again at once."""

    def __init__(self, spent_s: float) -> None:
        self.now_s, self._spent_s, self.asked = 0.0, spent_s, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        if self.asked > 1:
            writer.write(REFUSAL)
            await writer.drain()
        self.now_s += self._spent_s
        writer.close()
        await writer.wait_closed()


async def _with(gateway: Dying, do: Callable[[Vaults], "asyncio.Future[None]"]) -> None:
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Vaults(f"http://127.0.0.1:{port}", "key", clock=lambda: gateway.now_s) as vaults:
        await do(vaults)


@pytest.mark.parametrize("spent_s", [0.0, 100.0, 3000.0])
def test_an_order_is_brought_again_however_long_it_ran_when_its_gateway_died(spent_s: float):
    """Patience counts from when the gateway was last there, not from when it was asked."""
    gateway = Dying(spent_s)

    async def main(vaults: Vaults) -> None:
        with pytest.raises(ApiError, match="the second time"):
            await vaults.order(ZERO_DIGEST, "training", b"request")

    asyncio.run(_with(gateway, lambda vaults: asyncio.ensure_future(main(vaults))))
    assert gateway.asked == 2


def test_an_order_that_no_gateway_ends_is_given_up():
    """All of an order has its limit, however often its gateway came back."""
    gateway = Dying(4000.0)

    async def main(vaults: Vaults) -> None:
        with pytest.raises(Unreachable):
            await vaults.order(ZERO_DIGEST, "training", b"request")

    asyncio.run(_with(gateway, lambda vaults: asyncio.ensure_future(main(vaults))))
    assert gateway.asked == 1


def test_a_connection_without_words_is_kept_alive_or_found_dead():
    """A gateway's machine that is switched off says nothing: the system asks after a while, and ends the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(REFUSAL)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with (
            server,
            Vaults(f"http://127.0.0.1:{port}", "key") as vaults,
            vaults._http.stream("POST", "/") as response,  # pyright: ignore[reportPrivateUsage]
        ):
            found = response.extensions["network_stream"].get_extra_info("socket")
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60

    asyncio.run(main())
