"""A real machine, this one: the node's process does the tests, the validator's threads check them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from clusterai.audit.core.stretches import Sentinel
from clusterai.ledger.core.events import BeaconRecorded, Block, Bonded, Delegated, Registered
from clusterai.node.adapters import hardware
from clusterai.node.adapters.proving import Proving
from clusterai.node.config import RentalsConfig
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.measuring import Claims, Measured, decode_findings
from clusterai.protocol.messages import Relay
from clusterai.protocol.offers import Field, decode_measurement
from clusterai.protocol.signing import recover
from clusterai.runtime.machine import Linked, Received
from clusterai.validator.adapters.measuring import Measuring
from clusterai.validator.core.examination import Plan
from clusterai.validator.core.measurer import MeasurerSettings
from clusterai.work.cluster.inside import sentinel
from tests.rooms.measuring.measured_world import GATEWAY, NETWORK, key

PLAN = Plan(
    echoes=2,
    alone_ms=150,
    together_ms=150,
    size=128,
    links=4,
    fill_bytes=16 * 1024 * 1024,
    stored_bytes=1024 * 1024,
    line_bytes=1024 * 1024,
)
OWNER, HOT, EYE, EYE_HOT = (key(number) for number in (51, 52, 53, 54))


class Bridge:
    """A gateway that joins one node to one validator in this process."""

    def __init__(self) -> None:
        self.to_validator: Callable[[Any], Any] = lambda _: None
        self.to_node: Callable[[Any], Any] = lambda _: None
        self.heard: asyncio.Queue[Measured] = asyncio.Queue()

    def from_validator(self, to: Address, frame: Any) -> bool:
        loop = asyncio.get_running_loop()
        if isinstance(frame, Relay):
            loop.call_soon(self.to_node, Received(GATEWAY, frame))
        else:
            self.heard.put_nowait(frame)
        return True

    # what a node's `Outlet` is

    def send(self, gateway: Address, frame: Any) -> bool:
        asyncio.get_running_loop().call_soon(self.to_validator, Received(GATEWAY, frame))
        return True

    async def drained(self, gateway: Address) -> None:
        await asyncio.sleep(0)


def claimed(folder: Path) -> Claims:
    return hardware.claims(folder, None, 0)


async def measured(folder: Path) -> tuple[Measured, list[Measured]]:
    bridge = Bridge()
    shown: list[Measured] = []
    proving = Proving(
        OWNER.address,
        HOT,
        NETWORK,
        folder / "node",
        hardware.cores(),
        lambda: claimed(folder),
        lambda: "",
        bridge,
        shown.append,
        asyncio.get_running_loop().time,
    )
    settings = MeasurerSettings(
        me=EYE.address,
        network=NETWORK,
        sign=EYE_HOT.sign,
        recover=recover,
        word=lambda data: Digest(blake3(b"secret" + data).digest()),
        sentinel=Sentinel(sentinel.first, sentinel.link),
        epoch_s=15,
        plan=PLAN,
    )
    measuring = Measuring(folder / "validator", settings, "NORMAL", bridge.from_validator, lambda _: None)
    proving._clock = measuring.driver._clock  # one clock for both  # pyright: ignore[reportPrivateUsage]
    bridge.to_node, bridge.to_validator = proving.hear, measuring.hear
    events: list[Any] = [
        Registered(EYE.address, int(Role.VALIDATOR), ZERO_DIGEST),
        Bonded(EYE.address, 10, 10),
        Delegated(EYE.address, EYE_HOT.address),
        Registered(OWNER.address, int(Role.PROVIDER), ZERO_DIGEST),
        Delegated(OWNER.address, HOT.address),
        Block(1, 100),
        BeaconRecorded(0, Digest(bytes(32))),
        Block(2, 101),
    ]
    for event in events:
        proving.hear(event)
        measuring.hear(event)
    running = [asyncio.create_task(it) for it in (proving.run(), measuring.driver.tick_forever(0.05))]
    try:
        measuring.hear(Linked(GATEWAY))
        async with asyncio.timeout(120):
            found = await bridge.heard.get()
        await asyncio.sleep(0)
        return found, shown
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await measuring.close()


def test_this_machine_is_measured(tmp_path: Path) -> None:
    """From the first test to the signed measurement, with the real chain, products, memory and disk."""
    found, _ = asyncio.run(measured(tmp_path))
    said = decode_measurement(found.measurement)
    assert said.fields & (Field.CPU | Field.PROFILE | Field.MEMORY) == Field.CPU | Field.PROFILE
    assert said.links_per_s_milli > 0
    assert said.links_at_once_per_s_milli > 0
    rows = {it.name: it for it in decode_findings(found.findings).found}
    for name in (
        "multiply_mops_per_s",
        "memory_bytes",
        "disk_write_kbytes_per_s",
        "line_up_kbps",
        "line_down_kbps",
    ):
        assert rows[name].found, rows[name]
    assert not (tmp_path / "node" / "exercise.bin").exists()


def test_drivers_words_about_cards_are_read() -> None:
    """A name, a serial and a size a line; what isn't that is passed over."""
    said = "NVIDIA H100 80GB HBM3, GPU-8d2c, 81559\nnothing\nTesla T4, GPU-1, 15360\nX, Y, many\n"
    one, two = hardware.parsed_gpus(said)
    assert (one.name, one.uuid, one.memory_bytes) == ("h100", "GPU-8d2c", 81_559 * 2**20)
    assert two.name == "t4"


def test_the_cards_that_are_lent_are_claimed_under_the_name_of_the_offer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or a measured card would be called otherwise than the one that renters ask for."""
    said = "NVIDIA L4, GPU-00000001, 24\nNVIDIA L4, GPU-00000002, 24\nNVIDIA L4, GPU-00000003, 24\n"
    found = hardware.parsed_gpus(said)
    monkeypatch.setattr(hardware, "gpus", lambda: found)
    assert [it.uuid for it in hardware.lent_gpus(RentalsConfig(gpus=2))] == ["GPU-00000001", "GPU-00000002"]
    named = hardware.lent_gpus(RentalsConfig(gpus=2, gpu="l4-24g", cards=("2", "GPU-00000001")))
    assert [(it.name, it.uuid) for it in named] == [("l4-24g", "GPU-00000001"), ("l4-24g", "GPU-00000003")]
