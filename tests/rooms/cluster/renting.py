"""A rented cluster as a renter has it: machines on several hosts, a relay, the renter's own end of the mesh."""

import asyncio
import json
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import netns

from clusterai.mesh import Device, Member, RelayServer, endpoints, keypair, net_of
from clusterai.mesh.core.uapi import Endpoint
from clusterai.protocol.ids import Digest
from clusterai.work.cluster.adapters.cards import Cards
from clusterai.work.cluster.adapters.stay import Stay, StaySettings
from clusterai.work.cluster.spec import JOBS_PORT, ClusterSpec
from scripts import install
from tests.rooms.mesh.hosts import Host, Internet

T = TypeVar("T")
MOST = 5
"""Places that the relay knows; the renter's is the last."""
TOKEN = bytes(range(32))
DEADLINE_S = 300.0
UNHEARD_S = 4.0


SHELL = """
import asyncio, sys
from clusterai.work.cluster.adapters.terminal import Terminal

async def main():
    async with asyncio.timeout(180), await Terminal.open(sys.argv[1], bytes.fromhex(sys.argv[2])) as it:
        it.write(sys.argv[3].encode())
        while data := await it.show():
            sys.stdout.buffer.write(data)

asyncio.run(main())
"""


NOTEBOOK = """
import asyncio, json, sys
import httpx
from clusterai.work.cluster.adapters.notebook import serve

async def main():
    url = asyncio.get_running_loop().create_future()
    lab = asyncio.create_task(serve(sys.argv[1], bytes.fromhex(sys.argv[2]), url.set_result, lambda _: None))
    await asyncio.wait([lab, url], return_when=asyncio.FIRST_COMPLETED)
    if lab.done():
        lab.result()
    at = httpx.URL(url.result())
    async with httpx.AsyncClient(timeout=120) as client:
        page = await client.get(at, follow_redirects=True)
        kernels = at.copy_with(path="/api/kernels", query=None)
        stranger = await client.post(kernels, json={})
        key = {"Authorization": "token " + at.params["token"]}
        kernel = await client.post(kernels, json={}, headers=key)
    lab.cancel()
    await asyncio.wait([lab])
    print(json.dumps({"page": page.status_code, "stranger": stranger.status_code, "kernel": kernel.json(), "title": "JupyterLab" in page.text}))

asyncio.run(main())
"""


def environment() -> Path:
    home = install.HOME / "peers" / "ray"
    assert install.peer(install.PEERS / "ray.txt", home) is not None, (
        "ray isn't installed as scripts/peers/ray.txt wants it: make install-peers"
    )
    return home.resolve()


class Rental:
    """Made whole by `begin`, gone by `end`."""

    def __init__(
        self, machines: int, cores: tuple[int, ...] = (0,), gpus: int = 0, cards: Cards | None = None
    ) -> None:
        self._cores, self._cards = cores, cards
        self.lease = Digest(os.urandom(32))
        self.folder = Path(tempfile.mkdtemp(prefix="clusterai-rental-"))
        self.spec = ClusterSpec(
            cpu_milli=1000 * len(cores), memory_bytes=2 << 30, disk_bytes=1 << 30, gpus=gpus
        )
        self.internet = Internet()
        self.net = net_of(self.lease)
        self.stays: dict[int, Stay] = {}
        self.steps: dict[int, dict[str, int]] = {}
        self._runner = asyncio.Runner()
        self._relay_host, address = self.internet.host()
        self._relay = RelayServer("0.0.0.0", address)
        self.ports: dict[int, dict[int, Endpoint]] = {}
        self.hosts = [self.internet.host()[0] for _ in range(machines)]
        self.renter, _ = self.internet.host()
        self._device: Device | None = None
        self._private, self._key = keypair(os.urandom(32))
        self.token = self.folder / "token"
        self.token.write_text(TOKEN.hex())

    def run(self, it: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(DEADLINE_S):
                return await it

        return self._runner.run(bounded())

    @property
    def head(self) -> str:
        return self.net.address(0)

    @property
    def jobs(self) -> str:
        return f"http://{self.head}:{JOBS_PORT}"

    def members(self) -> list[Member]:
        return [Member(place, it.key) for place, it in sorted(self.stays.items())] + [Member(MOST, self._key)]

    async def open(self, place: int, host: Host) -> Stay:
        settings = StaySettings(
            ray=environment(), cores=self._cores, network=Path(host.namespace), cards=self._cards
        )
        stay = await Stay.open(self.lease, place, self.spec, self.folder / f"node-{place}", settings)
        self.stays[place] = stay
        return stay

    async def begin(self) -> None:
        await asyncio.gather(*(self.open(place, host) for place, host in enumerate(self.hosts)))
        await self.meet()
        device = await Device.open(f"car{os.getpid() % 10**6}", self.renter.enter)
        self._device = device
        await device.settle(self.net.address(MOST), 24, origin=self.renter.namespace)
        await self.call()
        await asyncio.gather(*(self.join(place) for place in self.stays))

    async def join(self, place: int) -> None:
        await self.stays[place].remesh(self.members(), self.ports[place])
        self.steps[place] = await self.stays[place].join(0, TOKEN)

    async def meet(self) -> None:
        """The relay's ports for those who are there."""
        self._relay.close(self.lease)
        netns.pushns(self._relay_host.namespace)
        try:
            opened = await self._relay.open(self.lease, self.members())
        finally:
            netns.popns()
        self.ports = {place: dict(to) for place, to in opened.items()}

    async def call(self) -> None:
        """The renter's own device."""
        assert self._device is not None
        me = Member(MOST, self._key)
        peers = endpoints(self.net, me, self.members(), self.ports[MOST])
        await self._device.configure(self._private, peers)

    async def exchange(self, place: int, anew: int, host: Host) -> None:
        """One machine for another."""
        await self.stays.pop(place).close()
        await self.open(anew, host)
        await self.meet()
        await self.call()
        for there, stay in self.stays.items():
            if there != anew:
                await stay.remesh(self.members(), self.ports[there])
        await self.join(anew)

    async def unheard(self, place: int) -> None:
        """Until all others miss this machine, and it misses them."""
        while not all(  # noqa: ASYNC110  a device counts bytes, and tells nobody
            stay.silent()[other] > UNHEARD_S
            for at, stay in self.stays.items()
            for other in self.stays
            if at != other and place in (at, other)
        ):
            await asyncio.sleep(0.1)

    async def ray(self, *words: str, token: bool = True, folder: Path | None = None) -> tuple[int, str]:
        """One of Ray's programs, as the renter runs it at home."""
        env = {
            "PATH": f"{environment()}/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "RAY_ADDRESS": self.jobs,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if token:
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}
        process = await asyncio.create_subprocess_exec(
            *self.renter.enter,
            *words,
            cwd=folder or self.folder,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        except (TimeoutError, asyncio.CancelledError):
            process.kill()
            # What it wrote is read to the end, so that nothing of it is left open.
            await process.communicate()
            raise
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace")

    def shell(self, place: int, typed: str) -> str:
        """What a machine's shell showed, for a renter who typed this."""
        arguments = (SHELL, self.net.address(place), TOKEN.hex(), typed)
        # Aside, as the relay is served by our own loop.
        return self.run(asyncio.to_thread(self.renter.python, *arguments))

    def notebook(self, place: int) -> dict[str, Any]:
        """What a browser would see of a notebook there, with its key and without."""
        arguments = (NOTEBOOK, self.net.address(place), TOKEN.hex())
        return json.loads(self.run(asyncio.to_thread(self.renter.python, *arguments)).splitlines()[-1])

    def job(self, program: str, *arguments: str) -> dict[str, Any]:
        """What a job of one file printed as its last line of JSON."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "train.py").write_text(program)
        words = ("ray", "job", "submit", "--working-dir", ".", "--", "python", "train.py", *arguments)
        code, said = self.run(self.ray(*words, folder=folder))
        lines = [line for line in said.splitlines() if line.startswith("{")]
        assert code == 0, said[-3000:]
        assert lines, said[-3000:]
        return json.loads(lines[-1])

    def end(self) -> None:
        async def closed() -> None:
            await asyncio.gather(*(stay.close() for stay in self.stays.values()))
            if self._device is not None:
                await self._device.close()
            self._relay.end()

        try:
            self.run(closed())
        finally:
            self._runner.close()
            self.internet.close()
