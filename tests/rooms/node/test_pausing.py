"""A node that its owner pauses: lending, the daemon, and the commands that say so."""

import asyncio
import json
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

from clusterai.node.adapters.willing import HostUse
from clusterai.node.core.leases import Paused
from clusterai.protocol.jobs import Lends
from clusterai.runtime.machine import Linked
from tests.rooms.node.lendingbed import GATEWAY, Bed
from tests.rooms.node.nodeprocess import SOURCE, Node, network


def run(test: Awaitable[None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(120):
            await test

    asyncio.run(within())


def owner(node: Node, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "clusterai.cli", "node", *words, "--config", str(node.config), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
    )


def test_a_paused_node_lends_nothing(tmp_path: Path) -> None:
    """What gateways hear of its lending is empty until it is resumed."""

    async def test() -> None:
        bed = Bed(tmp_path)
        offers: list[bytes] = []
        for event in (Paused("hours"), Linked(GATEWAY), Paused(), Linked(GATEWAY)):
            bed.lending.hear(event)
        offers = [it.offer for it in bed.seen if isinstance(it, Lends)]
        await bed.lending.close()
        assert offers[0] == b""
        assert offers[-1]

    asyncio.run(test())


def test_a_pause_holds_over_a_restart_and_ends_what_runs(tmp_path: Path) -> None:
    """The running answer ends with its receipt, the next order is refused, also by the daemon that comes after; then it resumes."""

    async def test() -> None:
        async with network(tmp_path, pause_ms=20) as (gateway, node):
            await gateway.serving()
            running = gateway.order(max_tokens=60)
            await gateway.until(lambda: len(running.tokens) > 0)
            paused = await asyncio.to_thread(owner, node, "pause")
            assert paused.returncode == 0, paused.stderr
            assert [it["cause"] for it in json.loads(paused.stdout)["pauses"]] == ["operator"]
            await gateway.until(lambda: gateway.offers is not None and gateway.offers.paused)
            refused = gateway.order()
            await gateway.until(lambda: refused.over and running.over)
            assert refused.refused is not None
            assert refused.refused.code == "paused"
            assert running.finished is not None
            assert len(running.tokens) == 60
            file = tmp_path / "data" / "paused"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            await node.end(signal.SIGKILL)
            gateway.offers = None
            await node.start()
            await gateway.until(lambda: gateway.offers is not None)
            assert gateway.offers is not None
            assert gateway.offers.paused
            resumed = await asyncio.to_thread(owner, node, "resume")
            assert resumed.returncode == 0, resumed.stderr
            await gateway.until(lambda: gateway.offers is not None and not gateway.offers.paused)
            taken = gateway.order()
            await gateway.until(lambda: taken.over)
            assert taken.finished is not None, taken.refused

    run(test())


def test_a_node_that_does_not_run_cannot_be_paused(tmp_path: Path) -> None:
    """The command says that none runs, and leaves no file behind that would surprise the next start."""

    async def test() -> None:
        async with network(tmp_path) as (gateway, node):
            await gateway.serving()
            assert await node.end(signal.SIGTERM) == 0
            for word in ("pause", "resume"):
                refused = await asyncio.to_thread(owner, node, word)
                assert refused.returncode == 3
                assert "no node runs" in refused.stderr
            assert not (tmp_path / "data" / "paused").exists()

    run(test())


def test_a_daemon_that_systemd_started_is_drained_by_its_configuration(tmp_path: Path) -> None:
    """The running answer ends with its receipt, the process with exit code 0, and a second drain finds nothing."""

    async def test() -> None:
        async with network(tmp_path, pause_ms=20) as (gateway, node):
            await gateway.serving()
            running = gateway.order(max_tokens=60)
            await gateway.until(lambda: len(running.tokens) > 0)
            drained = await asyncio.to_thread(owner, node, "drain")
            assert json.loads(drained.stdout)["stopped"], drained.stderr
            await gateway.until(lambda: running.over)
            assert running.finished is not None
            assert node.process is not None
            assert await node.process.wait() == 0
            again = await asyncio.to_thread(owner, node, "drain")
            assert not json.loads(again.stdout)["stopped"]

    run(test())


def test_outside_its_hours_a_node_is_paused(tmp_path: Path) -> None:
    """A window on a day that isn't today takes nothing, and says which hours it keeps."""

    async def test() -> None:
        elsewhen = [{"days": [far_day()], "begin": "00:00", "end": "00:01"}]
        async with network(tmp_path, settings={"hours": elsewhen, "zone": "UTC"}) as (gateway, _):
            await gateway.serving()
            ordered = gateway.order()
            await gateway.until(lambda: ordered.over)
            assert ordered.refused is not None
            assert ordered.refused.code == "paused"
            assert "00:00-00:01" in ordered.refused.detail
            assert "(UTC)" in ordered.refused.detail

    run(test())


def far_day() -> str:
    """Three days from now: the test may run over midnight."""
    from datetime import UTC, datetime, timedelta

    from clusterai.node.core.willing import DAYS

    return DAYS[(datetime.now(UTC) + timedelta(days=3)).weekday()]


def test_the_nodes_own_work_is_no_use_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process burns counts for itself, and what is idle for nobody; before the first sample nothing is known."""
    use = HostUse()
    assert use.look() is None
    sums = iter([(1_000.0, 400.0, 100.0), (1_100.0, 490.0, 150.0), (1_200.0, 500.0, 200.0)])
    monkeypatch.setattr(use, "_sums", lambda: next(sums))
    monkeypatch.setattr("clusterai.node.adapters.willing.SAMPLE_S", 0.0)
    use.look()
    busy = use.look()
    assert busy is not None
    assert busy.foreign == pytest.approx(0.4)
    quiet = use.look()
    assert quiet is not None
    assert quiet.foreign == 0.0


def test_what_is_measured_adds_up() -> None:
    """Of all cores' seconds some are busy, and of these some are ours."""
    total, busy, own = HostUse()._sums()  # pyright: ignore[reportPrivateUsage]
    assert total > busy > 0
    assert own > 0
