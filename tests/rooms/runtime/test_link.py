"""Links over real loopback sockets: who gets in, what ends a link, and that nobody waits for ever."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake

from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Role
from clusterai.protocol.messages import Announce, Cancel, Frame, Ping, Relay
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.adapters.certificate import caller_context, certificate, fingerprint_of, host_context
from clusterai.runtime.adapters.link import LinkClient, LinkServer
from clusterai.runtime.adapters.wire import Limits
from clusterai.runtime.core.greeting import (
    Greeted,
    Hello,
    Identity,
    Reason,
    TurnedAway,
    Welcome,
    binding,
    greet,
    hear,
)

DOMAIN = network_domain(31415, Address(b"R" * 20))
QUICK = Limits(ping_every_s=0.05, dead_after_s=60.0, retry_s=0.01, retry_most_s=0.02, opening_s=60.0)
"""Pings and dials often; who is only slow on a loaded machine is neither dead nor a stranger."""
PATIENCE_S = 120


def hot(name: str) -> Key:
    return Key(name.encode().ljust(32, b"."))


def owner(name: str) -> Address:
    return Address(name.encode().ljust(20, b"_"))


def identity(name: str, role: Role) -> Identity:
    return Identity(owner(name), role, DOMAIN, hot(name).sign)


class Directory:
    """A registry: names with a role; the hot key of a name is delegated by its owner."""

    def __init__(self, **roles: Role) -> None:
        self.roles = roles
        self.reasons: dict[str, Reason] = {}

    def __call__(self, key: Address, role: Role) -> Address | Reason:
        for name, held in self.roles.items():
            if hot(name).address == key:
                return self.reasons.get(name) or (owner(name) if role in held else Reason.WRONG_ROLE)
        return Reason.UNREGISTERED


class Log:
    """The callbacks of one side, and waiting for what they hear."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Address, object]] = []
        self._changed = asyncio.Event()

    def note(self, what: str, peer: Address, detail: object) -> None:
        self.lines.append((what, peer, detail))
        self._changed.set()

    def up(self, peer: Address, role: Role) -> None:
        self.note("up", peer, role)

    def down(self, peer: Address, reason: str) -> None:
        self.note("down", peer, reason)

    def frame(self, peer: Address, frame: Frame) -> None:
        if not isinstance(frame, Ping):
            self.note("frame", peer, frame)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def sees(self, *whats: str) -> None:
        await self.until(lambda: [line[0] for line in self.lines][: len(whats)] == list(whats))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what is awaited here has no event of its own
            await asyncio.sleep(0.002)


class Gateway:
    def __init__(self, folder: Path, directory: Directory, name: str, limits: Limits, port: int = 0) -> None:
        self.log = Log()
        self.server = LinkServer(
            "127.0.0.1",
            port,
            identity(name, Role.GATEWAY),
            certificate(folder / name),
            directory,
            self.log.up,
            self.log.down,
            self.log.frame,
            limits=limits,
        )
        self.owner = owner(name)

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.server.port}/"

    async def __aenter__(self) -> "Gateway":
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.server.close()


@asynccontextmanager
async def caller(
    name: str, directory: Directory, role: Role = Role.PROVIDER, limits: Limits = QUICK, **gateways: str
) -> AsyncGenerator[tuple[LinkClient, Log]]:
    log = Log()
    client = LinkClient(
        {owner(gateway): url for gateway, url in gateways.items()},
        identity(name, role),
        directory,
        log.up,
        log.down,
        log.frame,
        load=lambda: (3, 4),
        limits=limits,
    )
    running = asyncio.create_task(client.run())
    try:
        yield client, log
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=PATIENCE_S)
        assert running.done()


class Stranger:
    """A hand-driven caller: it can say anything at any time."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        tls = connection.transport.get_extra_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject)
        self.fingerprint = fingerprint_of(tls.getpeercert(binary_form=True) or b"")
        self.nonce = b"n" * 32
        self.host_nonce = b""

    async def hello(self) -> None:
        await self.connection.send(canonical.encode(Hello(1, self.nonce)))
        answer = hear(await self.heard())
        assert isinstance(answer, Hello)
        self.host_nonce = answer.nonce
        assert isinstance(hear(await self.heard()), Greeted)

    def greeting(self, name: str, role: Role = Role.PROVIDER) -> bytes:
        bound = binding(self.fingerprint, self.host_nonce, self.nonce)
        return canonical.encode(greet(identity(name, role), bound))

    async def heard(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            data = await self.connection.recv(decode=False)
        assert isinstance(data, bytes)
        return data

    async def get_in(self, name: str) -> None:
        await self.hello()
        await self.connection.send(self.greeting(name))
        assert isinstance(hear(await self.heard()), Welcome)


@asynccontextmanager
async def stranger(url: str) -> AsyncGenerator[Stranger]:
    async with connect(
        url, ssl=caller_context(), compression=None, ping_interval=None, close_timeout=1
    ) as raw:
        yield Stranger(raw)


@pytest.fixture(autouse=True, params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Daemons run on uvloop where it is installed, and on asyncio's own loop elsewhere."""
    global _new_loop
    _new_loop = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
    yield
    _new_loop = asyncio.new_event_loop


_new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop


def run(test: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(test)


GW_AND_NODE = {"gw": Role.GATEWAY, "node": Role.PROVIDER}


def test_greeted_peers_exchange_frames_in_order_and_by_owner(tmp_path: Path) -> None:
    """Both sides know each other by owner, frames arrive in order, and the round trip is measured."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        async with (
            Gateway(tmp_path, directory, "gw", QUICK) as gateway,
            caller("node", directory, gw=gateway.url) as (client, log),
        ):
            await log.sees("up")
            await gateway.log.sees("up")
            assert log.lines == [("up", owner("gw"), Role.GATEWAY)]
            assert gateway.log.lines == [("up", owner("node"), Role.PROVIDER)]
            frames = [Cancel(bytes((i,)) * 32) for i in range(50)]
            for frame in frames:
                assert client.send(owner("gw"), frame)
                assert gateway.server.send(owner("node"), frame)
            await gateway.log.until(lambda: len(gateway.log.lines) == 51)
            await log.until(lambda: len(log.lines) == 51)
            assert [line[2] for line in gateway.log.lines[1:]] == frames
            assert [line[2] for line in log.lines[1:]] == frames
            await until(lambda: gateway.server.round_trip_ms(owner("node")) is not None)
            await until(lambda: client.round_trip_ms(owner("gw")) is not None)
            assert client.status()[0].up
            assert not gateway.server.send(owner("nobody"), frames[0])

    run(test())


def test_a_ping_tells_the_load(tmp_path: Path) -> None:
    """The gateway hears how much a provider runs and queues."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        async with Gateway(tmp_path, directory, "gw", QUICK) as gateway:
            pings: list[Frame] = []

            def hear_ping(_: Address, frame: Frame) -> None:
                pings.append(frame)

            gateway.server.on_frame = hear_ping
            async with caller("node", directory, gw=gateway.url):
                await until(lambda: bool(pings))
                assert isinstance(pings[0], Ping)
                assert (pings[0].running, pings[0].queued) == (3, 4)

    run(test())


@pytest.mark.parametrize(
    ("name", "role", "reason"),
    [
        ("nobody", Role.PROVIDER, Reason.UNREGISTERED),
        ("node", Role.VALIDATOR, Reason.WRONG_ROLE),
        ("gw2", Role.GATEWAY, Reason.WRONG_ROLE),
        ("poor", Role.PROVIDER, Reason.LITTLE_STAKE),
        ("cheat", Role.PROVIDER, Reason.BARRED),
    ],
)
def test_a_stranger_hears_why_it_is_refused(tmp_path: Path, name: str, role: Role, reason: Reason) -> None:
    """Who isn't registered, in that role, with stake and unbarred, never comes up and learns the reason."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE, gw2=Role.GATEWAY, poor=Role.PROVIDER, cheat=Role.PROVIDER)
        directory.reasons = {"poor": Reason.LITTLE_STAKE, "cheat": Reason.BARRED}
        async with (
            Gateway(tmp_path, directory, "gw", QUICK) as gateway,
            caller(name, directory, role, gw=gateway.url) as (client, log),
        ):
            await until(lambda: client.status()[0].why.startswith(f"refused: {reason}"))
            await until(lambda: gateway.server.refused.get("refused", 0) > 0)
            assert log.lines == gateway.log.lines == []
            assert not client.send(owner("gw"), Cancel(bytes(32)))

    run(test())


def test_another_owners_name_is_refused(tmp_path: Path) -> None:
    """A registered key can't greet as somebody else."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE, thief=Role.PROVIDER)
        async with (
            Gateway(tmp_path, directory, "gw", QUICK) as gateway,
            stranger(gateway.url) as thief,
        ):
            await thief.hello()
            bound = binding(thief.fingerprint, thief.host_nonce, thief.nonce)
            me = Identity(owner("node"), Role.PROVIDER, DOMAIN, hot("thief").sign)
            await thief.connection.send(canonical.encode(greet(me, bound)))
            answer = hear(await thief.heard())
            assert isinstance(answer, TurnedAway)
            assert answer.code == Reason.NOT_THE_OWNER

    run(test())


def test_a_replayed_greeting_is_refused(tmp_path: Path) -> None:
    """A greeting recorded on one connection opens no other one."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        async with Gateway(tmp_path, directory, "gw", QUICK) as gateway:
            async with stranger(gateway.url) as honest:
                await honest.hello()
                recorded = honest.greeting("node")
            async with stranger(gateway.url) as replayer:
                await replayer.hello()
                await replayer.connection.send(recorded)
                answer = hear(await replayer.heard())
            assert isinstance(answer, TurnedAway)
            assert answer.code == Reason.BAD_GREETING
            assert gateway.log.lines == []

    run(test())


def test_a_greeting_of_another_network_is_refused(tmp_path: Path) -> None:
    """The same key's greeting for another chain id opens nothing here."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        async with (
            Gateway(tmp_path, directory, "gw", QUICK) as gateway,
            stranger(gateway.url) as foreigner,
        ):
            await foreigner.hello()
            bound = binding(foreigner.fingerprint, foreigner.host_nonce, foreigner.nonce)
            other = network_domain(1, Address(b"R" * 20))
            me = Identity(owner("node"), Role.PROVIDER, other, hot("node").sign)
            await foreigner.connection.send(canonical.encode(greet(me, bound)))
            answer = hear(await foreigner.heard())
            assert isinstance(answer, TurnedAway)
            assert answer.code == Reason.UNREGISTERED

    run(test())


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass  # either end may go at any time; the other is told by closing
    finally:
        sink.close()


def test_a_man_in_the_middle_with_another_certificate_carries_nothing(tmp_path: Path) -> None:
    """Who ends TLS between the two is noticed by the caller before it has shown its own name."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        async with Gateway(tmp_path, directory, "gw", QUICK) as gateway:

            async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                up_reader, up_writer = await asyncio.open_connection(
                    "127.0.0.1", gateway.server.port, ssl=caller_context()
                )
                await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))

            context = host_context(certificate(tmp_path / "villain"))
            villain = await asyncio.start_server(between, "127.0.0.1", 0, ssl=context)
            url = f"wss://127.0.0.1:{villain.sockets[0].getsockname()[1]}/"
            async with villain, caller("node", directory, gw=url) as (client, log):
                await until(lambda: client.status()[0].why.startswith(f"refused: {Reason.BAD_GREETING}"))
                assert log.lines == gateway.log.lines == []

    run(test())


def test_another_gateway_than_the_dialled_is_refused(tmp_path: Path) -> None:
    """A registered gateway can't stand in for the one whose address was asked for."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE, other=Role.GATEWAY)
        async with (
            Gateway(tmp_path, directory, "other", QUICK) as other,
            caller("node", directory, gw=other.url) as (client, log),
        ):
            await until(lambda: client.status()[0].why.startswith(f"refused: {Reason.OTHER_GATEWAY}"))
            assert log.lines == []

    run(test())


@pytest.mark.parametrize(
    ("name", "bytes_"),
    [
        ("noise", b"\xc1 noise"),
        ("empty", b""),
        ("another shape", canonical.encode(Hello(1, bytes(32)))),
        ("not canonical", b"\x82\xa5order\xc4 " + bytes(32) + b"\xa4type\xd9\x06Cancel"),
        ("oversized", bytes(canonical.MAX_FRAME_BYTES + 1)),
    ],
)
def test_a_malformed_frame_ends_the_link(tmp_path: Path, name: str, bytes_: bytes) -> None:
    """What isn't one canonical frame within the size limit ends that peer's link and no other."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE, other=Role.PROVIDER)
        async with (
            Gateway(tmp_path, directory, "gw", QUICK) as gateway,
            caller("other", directory, gw=gateway.url),
            stranger(gateway.url) as villain,
        ):
            await villain.get_in("node")
            await villain.connection.send(bytes_)
            await gateway.log.until(lambda: gateway.log.lines[-1][0] == "down")
            _, peer, why = gateway.log.lines[-1]
            assert peer == owner("node")
            assert str(why).startswith("malformed")
            assert gateway.server.peers() == (owner("other"),)

    run(test())


@pytest.mark.parametrize("message", ["text", ["frag", "ments"], [b"frag", b"ments"]])
def test_text_and_fragments_end_the_link(tmp_path: Path, message: str | list[str] | list[bytes]) -> None:
    """A message is one whole binary WebSocket frame, so that size limits hold before memory is spent."""

    async def test() -> None:
        async with (
            Gateway(tmp_path, Directory(**GW_AND_NODE), "gw", QUICK) as gateway,
            stranger(gateway.url) as villain,
        ):
            await villain.get_in("node")
            await villain.connection.send(message)
            await gateway.log.until(lambda: gateway.log.lines[-1][0] == "down")
            assert str(gateway.log.lines[-1][2]).startswith("malformed")

    run(test())


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"A" * 100_000,
    ],
)
def test_no_websocket_no_link(tmp_path: Path, opening: bytes) -> None:
    """A caller that speaks something else is answered with an end, and counted."""

    async def test() -> None:
        async with Gateway(tmp_path, Directory(), "gw", Limits(opening_s=0.5)) as gateway:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", gateway.server.port, ssl=caller_context()
            )
            writer.write(opening)
            async with asyncio.timeout(PATIENCE_S):
                with suppress(OSError):  # ended by a reset: an end as good as any
                    await reader.read()
            writer.close()
            await until(lambda: sum(gateway.server.refused.values()) == 1)

    run(test())


def test_who_never_finishes_tls_is_dropped(tmp_path: Path) -> None:
    """A connection that doesn't even speak TLS costs its slot only until the opening deadline."""

    async def test() -> None:
        async with Gateway(tmp_path, Directory(), "gw", Limits(opening_s=0.2)) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
            await until(lambda: gateway.server.refused == {"timeout": 1})
            writer.close()

    run(test())


def test_nobody_there_is_unreachable_and_dialled_on(tmp_path: Path) -> None:
    """A gateway that doesn't listen is tried again and again, and the status says why."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        async with Gateway(tmp_path, directory, "gw", QUICK) as gateway:
            url = gateway.url
        async with caller("node", directory, gw=url) as (client, _):
            await until(lambda: client.status()[0].attempts > 3)
            assert client.status()[0].why.startswith("unreachable")

    run(test())


def test_who_never_greets_is_dropped(tmp_path: Path) -> None:
    """A connection that stays silent costs its slot only until the opening deadline."""

    async def test() -> None:
        limits = Limits(opening_s=0.2)
        async with (
            Gateway(tmp_path, Directory(), "gw", limits) as gateway,
            stranger(gateway.url) as silent,
        ):
            async with asyncio.timeout(PATIENCE_S):
                await silent.connection.wait_closed()
            await until(lambda: gateway.server.refused == {"timeout": 1})

    run(test())


def test_ungreeted_connections_are_bounded(tmp_path: Path) -> None:
    """Strangers fill their own slots and no others; a freed slot is open again."""

    async def test() -> None:
        limits = Limits(strangers=1)
        async with Gateway(tmp_path, Directory(**GW_AND_NODE), "gw", limits) as gateway:
            async with stranger(gateway.url):
                with pytest.raises((OSError, InvalidHandshake)):
                    async with stranger(gateway.url):
                        pass
            await until(lambda: sum(gateway.server.refused.values()) == 1)
            async with stranger(gateway.url) as node:
                await node.get_in("node")
                async with stranger(gateway.url) as another:
                    await another.hello()

    run(test())


def test_a_slow_reader_is_cut_off_and_never_waited_for(tmp_path: Path) -> None:
    """A peer that stops reading costs a bounded outbox, then its link."""

    async def test() -> None:
        limits = Limits(outbox_bytes=2_000_000, pause_bytes=100_000)
        async with (
            Gateway(tmp_path, Directory(**GW_AND_NODE), "gw", limits) as gateway,
            stranger(gateway.url) as slow,
        ):
            await slow.get_in("node")
            slow.connection.transport.pause_reading()
            frame = Relay(bytes(20), bytes(20), bytes(200_000))
            waiting: Awaitable[None] | None = None
            accepted = 0
            while gateway.server.send(owner("node"), frame):
                accepted += 1
                waiting = waiting or asyncio.ensure_future(gateway.server.drained(owner("node")))
                await asyncio.sleep(0)
                assert accepted < 200, "the outbox has no bound"
            await gateway.log.until(lambda: gateway.log.lines[-1][0] == "down")
            assert str(gateway.log.lines[-1][2]).startswith("slow")
            assert waiting is not None
            async with asyncio.timeout(PATIENCE_S):
                await waiting
            slow.connection.transport.abort()

    run(test())


def test_backpressure_waits_for_the_reader(tmp_path: Path) -> None:
    """Who awaits `drained` between sends never overruns a slow peer, and all arrives."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        limits = Limits(outbox_bytes=1_000_000, pause_bytes=100_000)
        async with (
            Gateway(tmp_path, directory, "gw", limits) as gateway,
            caller("node", directory, limits=limits, gw=gateway.url) as (_, log),
        ):
            await gateway.log.sees("up")
            frame = Relay(bytes(20), bytes(20), bytes(200_000))
            for _ in range(40):
                await gateway.server.drained(owner("node"))
                assert gateway.server.send(owner("node"), frame)
            await log.until(lambda: len(log.lines) == 41)

    run(test())


def test_a_dead_peer_is_noticed(tmp_path: Path) -> None:
    """A peer that falls silent without closing counts as gone."""

    async def test() -> None:
        async with (
            Gateway(tmp_path, Directory(**GW_AND_NODE), "gw", replace(QUICK, dead_after_s=0.4)) as gateway,
            stranger(gateway.url) as mute,
        ):
            await mute.get_in("node")
            await gateway.log.sees("up", "down")
            assert str(gateway.log.lines[-1][2]).startswith("dead")

    run(test())


def test_a_restarted_gateway_is_dialled_again(tmp_path: Path) -> None:
    """Links come back by themselves, and both machines hear down and up."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        gateway = Gateway(tmp_path, directory, "gw", QUICK)
        await gateway.server.start()
        async with caller("node", directory, gw=gateway.url) as (_, log):
            await log.sees("up")
            await gateway.server.close()
            await log.sees("up", "down")
            async with Gateway(tmp_path, directory, "gw", QUICK, gateway.server.port) as again:
                await log.sees("up", "down", "up")
                await again.log.sees("up")

    run(test())


def test_several_gateways_are_linked_at_once(tmp_path: Path) -> None:
    """The end of one gateway leaves the link with another untouched."""

    async def test() -> None:
        directory = Directory(gw=Role.GATEWAY, gw2=Role.GATEWAY, node=Role.PROVIDER)
        async with Gateway(tmp_path, directory, "gw2", QUICK) as second:
            first = Gateway(tmp_path, directory, "gw", QUICK)
            await first.server.start()
            async with caller("node", directory, gw=first.url, gw2=second.url) as (client, log):
                await log.sees("up", "up")
                await first.server.close()
                await log.sees("up", "up", "down")
                assert client.peers() == (owner("gw2"),)
                assert client.send(owner("gw2"), Announce((), 0, 0, False))
                await second.log.sees("up", "frame")

    run(test())


def test_a_newer_connection_replaces_the_older(tmp_path: Path) -> None:
    """A provider that restarts before its death is noticed is heard as gone and back."""

    async def test() -> None:
        async with (
            Gateway(tmp_path, Directory(**GW_AND_NODE), "gw", QUICK) as gateway,
            stranger(gateway.url) as old,
            stranger(gateway.url) as new,
        ):
            await old.get_in("node")
            await new.get_in("node")
            assert [line[0] for line in gateway.log.lines] == ["up", "down", "up"]
            async with asyncio.timeout(PATIENCE_S):
                await old.connection.wait_closed()
            assert gateway.server.send(owner("node"), Cancel(bytes(32)))
            assert gateway.server.peers() == (owner("node"),)

    run(test())


def test_a_barred_peer_can_be_dropped(tmp_path: Path) -> None:
    """The gateway ends a link with a reason, and the dropped peer is turned away when it dials again."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE)
        async with (
            Gateway(tmp_path, directory, "gw", QUICK) as gateway,
            caller("node", directory, gw=gateway.url) as (client, log),
        ):
            await gateway.log.sees("up")
            directory.reasons["node"] = Reason.BARRED
            gateway.server.drop(owner("node"), "barred")
            await gateway.log.sees("up", "down")
            await log.sees("up", "down")
            await until(lambda: client.status()[0].why.startswith(f"refused: {Reason.BARRED}"))

    run(test())


def test_linked_peers_are_bounded(tmp_path: Path) -> None:
    """A full gateway turns the next away with a reason; one that is already linked may connect again."""

    async def test() -> None:
        directory = Directory(**GW_AND_NODE, other=Role.PROVIDER)
        async with (
            Gateway(tmp_path, directory, "gw", Limits(peers=1)) as gateway,
            stranger(gateway.url) as first,
            stranger(gateway.url) as second,
            stranger(gateway.url) as again,
        ):
            await first.get_in("node")
            await second.hello()
            await second.connection.send(second.greeting("other"))
            answer = hear(await second.heard())
            assert isinstance(answer, TurnedAway)
            assert answer.code == Reason.FULL
            await again.get_in("node")

    run(test())


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_told_so(tmp_path: Path, version: int) -> None:
    """Who speaks another handshake hears that versions differ, before any greeting."""

    async def test() -> None:
        async with (
            Gateway(tmp_path, Directory(), "gw", QUICK) as gateway,
            stranger(gateway.url) as other,
        ):
            await other.connection.send(canonical.encode(Hello(version, bytes(32))))
            answer = hear(await other.heard())
            assert isinstance(answer, TurnedAway)
            assert answer.code == Reason.VERSION

    run(test())


def test_messages_out_of_turn_end_the_connection(tmp_path: Path) -> None:
    """A greeting before Hello, a second Hello, or a Welcome from a caller: none is an answer to anything."""

    async def test() -> None:
        async with Gateway(tmp_path, Directory(**GW_AND_NODE), "gw", QUICK) as gateway:
            for number, messages in enumerate(([Welcome()], [Hello(1, bytes(32)), Hello(1, bytes(32))])):
                async with stranger(gateway.url) as villain:
                    for message in messages:
                        await villain.connection.send(canonical.encode(message))
                    async with asyncio.timeout(PATIENCE_S):
                        await villain.connection.wait_closed()
                await until(lambda seen=number + 1: gateway.server.refused.get("malformed") == seen)

    run(test())


def test_a_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    """A restarted gateway shows the same certificate; nobody else reads its key."""
    made, again = certificate(tmp_path), certificate(tmp_path)
    assert made == again
    assert made.key.stat().st_mode & 0o077 == 0
    assert certificate(tmp_path / "other").fingerprint != made.fingerprint
