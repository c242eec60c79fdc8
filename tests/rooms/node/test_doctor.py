"""The doctor's rows: what is right is green, what isn't names its cure, and nothing is a crash."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from clusterai import sandbox
from clusterai.node import doctor
from clusterai.node.config import Config, JobsConfig, load_config
from clusterai.node.doctor import Row, examine, running
from tests.rooms.node.statuses import status
from tests.rooms.node.stubgateway import Gateway, prepare


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def config_in(folder: Path, url: str = "wss://127.0.0.1:9/") -> Config:
    return load_config(prepare(folder, url, int(time.time())), {})


def test_every_red_row_names_its_cure(tmp_path: Path) -> None:
    """With chain and gateway away the machine's rows are there, and both absences are told."""
    config = config_in(tmp_path)
    found = asyncio.run(examine(config))
    rows = by_name(found)
    assert rows["python"].state == rows["disk"].state == rows["model tiny"].state == "green"
    assert rows["hot key"].state == rows["manifest"].state == "green"
    assert rows["gateway"].state == rows["chain"].state == "red"
    assert "unreachable" in rows["gateway"].found
    assert all(row.cure for row in found if row.state == "red")
    assert msgspec.json.decode(msgspec.json.encode(found), type=list[Row]) == found


def test_a_gateway_is_dialled_and_greeted(tmp_path: Path) -> None:
    """A gateway that lets us in is green even while the chain is away."""

    async def test() -> None:
        gateway = Gateway(tmp_path / "gateway", time.time)
        await gateway.server.start()
        try:
            rows = by_name(await examine(config_in(tmp_path, gateway.url)))
        finally:
            await gateway.server.close()
        assert rows["gateway"].state == "green", rows["gateway"]

    asyncio.run(test())


@pytest.mark.parametrize("lends", [True, False])
def test_who_lends_to_jobs_needs_walls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lends: bool) -> None:
    """Without them a node that lends is red, with the command that cures it; who only answers is told, and well."""
    broken = sandbox.Row("walls", "red", "bubblewrap is missing", "apt-get install bubblewrap")
    monkeypatch.setattr(doctor, "_sandbox", lambda: [broken, sandbox.Row("users", "green", "its own")])
    config = msgspec.structs.replace(config_in(tmp_path), jobs=JobsConfig() if lends else None)
    rows = by_name(asyncio.run(examine(config)))
    row = rows["jobs: walls"]
    assert (row.state, row.cure) == ("red" if lends else "yellow", "apt-get install bubblewrap")
    assert rows["jobs: users"].state == "green"


@pytest.mark.parametrize("what", ["key", "network"])
def test_missing_files_are_red(tmp_path: Path, what: str) -> None:
    """Without key or manifest the rest that can be looked at still is."""
    config = msgspec.structs.replace(config_in(tmp_path), **{what: tmp_path / "nowhere"})
    rows = by_name(asyncio.run(examine(config)))
    row = rows["hot key" if what == "key" else "manifest"]
    assert row.state == "red"
    assert row.cure
    assert rows["python"].state == "green"


def test_an_unknown_model_is_red(tmp_path: Path) -> None:
    """A model that isn't here is said to be missing, with how to add it."""
    config = config_in(tmp_path)
    model = msgspec.structs.replace(config.models[0], name="no-such-model")
    config = msgspec.structs.replace(config, models=(model,), models_folder=tmp_path / "models")
    row = by_name(asyncio.run(examine(config)))["model no-such-model"]
    assert row.state == "red"
    assert row.cure


def test_a_running_nodes_links_are_asked_of_it(tmp_path: Path) -> None:
    """While the node runs nobody dials beside it: its own status tells."""
    config = config_in(tmp_path)
    assert running(config) is None
    config.data.mkdir(exist_ok=True)
    (config.data / "status.json").write_bytes(msgspec.json.encode(status()))
    found = running(config)
    assert found is not None
    assert found.links[0].up
    row = by_name(asyncio.run(examine(config)))["gateway"]
    assert "by the running node" in row.found
    (config.data / "status.json").write_bytes(msgspec.json.encode(status(pid=2**22 + 1)))
    assert running(config) is None
