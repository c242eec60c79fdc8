"""A machine joins a running network with one command, works there, leaves, and comes back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterai.ledger.adapters.network import load_network, network_digest
from clusterai.protocol.ids import checksummed, hex0x
from clusterai.protocol.signing import Key
from tests.system.running import Network, until

pytestmark = pytest.mark.system


def join(
    network: Network, folder: Path, *more: str, data: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    words = [
        "node",
        "join",
        f"http://127.0.0.1:{network.port}",
        "--folder",
        str(folder),
        "--model",
        network.model,
        "--yes",
        "--json",
        *more,
    ]
    return subprocess.run(
        [sys.executable, "-m", "clusterai.cli", *words, "--data", str(data or network.data)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def drain(folder: Path) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "clusterai.cli", "node", "drain", "--folder", str(folder), "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["stopped"]


def owner(word: str, folder: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "clusterai.cli", "node", word, "--folder", str(folder), "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state_of(network: Network, provider: str) -> str:
    return next(it["state"] for it in network.http("nodes")["nodes"] if it["provider"] == provider)


def test_a_machine_joins_leaves_and_comes_back(network: Network, tmp_path: Path):
    """Registered, staked, delegated and listed by one command; drained by another; the second join finds all done."""
    folder = tmp_path / "node"
    planned = join(network, folder, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert len(json.loads(planned.stdout)["steps"]) == 4
    assert json.loads(planned.stdout)["network_digest"] == network.ready["network_digest"]
    try:
        first = join(network, folder, "--network-digest", network.ready["network_digest"])
        assert first.returncode == 0, first.stderr
        told = json.loads(first.stdout)
        assert told["provider"] in {
            it["provider"] for it in network.told("node", "list")["nodes"] if it["state"] == "ready"
        }
        explained = owner("explain", folder)
        assert [it for it in explained["findings"] if it["state"] == "stops"] == []
        assert explained["gateway_says"]["provider"] == told["provider"]
        assert explained["gateway_says"]["ranks"][0]["of"] == 3
        assert [it["cause"] for it in owner("pause", folder)["pauses"]] == ["operator"]
        until(
            "the gateway to see it", lambda: state_of(network, told["provider"]) == "paused by its operator"
        )
        assert "paused" in {
            it["name"] for it in owner("explain", folder)["findings"] if it["state"] == "stops"
        }
        assert owner("resume", folder)["pauses"] == []
        until("the gateway to see it", lambda: state_of(network, told["provider"]) == "ready")
        twice = join(network, folder)
        assert twice.returncode != 0
        assert "runs in" in twice.stderr
        assert json.loads(first.stdout)["paused"] == []
        owner("pause", folder)
        assert drain(folder)
        assert not drain(folder)
        assert json.loads(join(network, folder).stdout)["paused"] == ["paused by its owner"]
        owner("resume", folder)
        assert drain(folder)
        assert json.loads(join(network, folder, "--dry-run").stdout)["steps"] == []
        config = json.loads((folder / "node.json").read_bytes())
        config["models"][0] |= {"input_wei": 0, "output_wei": 1}
        (folder / "node.json").write_text(json.dumps(config))
        again = join(network, folder, "--no-start")
        assert json.loads(again.stdout)["provider"] == told["provider"]
        assert owner("explain", folder)["findings"][0]["name"] == "daemon"
        assert join(network, folder).returncode == 0
        (cheap,) = owner("explain", folder)["gateway_says"]["ranks"]
        assert (cheap["place"], cheap["of"], cheap["price_wei"]) == (1, 3, 1)
    finally:
        drain(folder)


def test_the_doctor_measures_the_way_and_the_validators_money(network: Network):
    """Of a local network: bandwidth and clock of the gateway, and each validator's liquid balance against its bonds."""
    rows = {row["name"]: row for row in network.told("node", "doctor")["rows"]}
    assert rows["bandwidth"]["state"] == rows["clock (gateway)"]["state"] == "green"
    bonds = next(row for name, row in rows.items() if name.startswith("validator") and name.endswith("bonds"))
    assert "auditing the largest provider takes 100 CLAI" in bonds["found"]
    assert all(row["cure"] for row in rows.values() if row["state"] == "red")


def test_an_owner_without_money_is_told_what_to_send(network: Network, tmp_path: Path):
    """Away from the faucet nothing is sent, and the cure names the sum and the address."""
    key = Key(b"\x77" * 32)
    file = tmp_path / "owner.key"
    file.touch(mode=0o600)
    file.write_text(key.secret().hex())
    refused = join(network, tmp_path / "poor", "--owner-key", str(file), data=tmp_path / "elsewhere")
    assert refused.returncode != 0
    assert f"send 1000 CLAI to {checksummed(key.address)}" in refused.stderr
    assert not (tmp_path / "poor" / "node.json").exists()


def test_a_folder_belongs_to_one_network(network: Network, tmp_path: Path):
    """A folder that holds another network's manifest isn't joined to this one."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    manifest = json.loads((network.data / "network.json").read_text())
    manifest["genesis"] = "0x" + "11" * 32
    (folder / "network.json").write_text(json.dumps(manifest))
    refused = join(network, folder)
    assert refused.returncode != 0
    assert "belongs to another network" in refused.stderr


def test_a_gateway_of_another_network_is_refused(network: Network, tmp_path: Path):
    """Pinned to another digest, joining ends before anything is written or sent, and names both."""
    folder, other = tmp_path / "pinned", "0x" + "22" * 32
    refused = join(network, folder, "--network-digest", other)
    assert refused.returncode == 6
    assert other in refused.stderr
    mine = network.ready["network_digest"]
    assert mine in refused.stderr
    # Who has no node there gets the manifest by the same digest.
    file = tmp_path / "network.json"
    fetched = network.cli("network", str(file), "--network-digest", mine)
    assert fetched.returncode == 0, fetched.stderr
    assert hex0x(network_digest(load_network(file))) == mine
    assert not (folder / "network.json").exists()
    assert not (folder / "owner.key").exists()


def test_an_unpinned_network_is_asked_about(network: Network, tmp_path: Path):
    """Without a digest and without --yes the digest is shown, and nobody there to answer means no."""
    folder = tmp_path / "asked"
    words = ["node", "join", f"http://127.0.0.1:{network.port}", "--folder", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "clusterai.cli", *words, "--data", str(network.data)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )
    assert done.returncode != 0
    assert network.ready["network_digest"] in done.stdout
    assert "Is this the network that you mean?" in done.stderr
    assert not (folder / "node.json").exists()


def test_what_was_earned_agrees_with_the_nodes_status(network: Network):
    """Answers are paid for, and at a moment when nothing moves the sums of `earnings` are those of status.json."""
    client = network.openai()
    for _ in range(12):
        client.chat.completions.create(model=network.model, messages=[{"role": "user", "content": "hi"}])
    name = next(name for name in network.services() if name.startswith("node-"))
    folder = network.data / name

    def agreed() -> dict[str, int] | None:
        def status() -> dict[str, int]:
            told = json.loads((folder / "state" / "status.json").read_bytes())
            return {key: value for key, value in told.items() if key.endswith("_wei")}

        before = status()
        sums = earned(folder)["all_time"]["answers"]
        if status() != before or not before["claimed_wei"]:
            return None
        assert sums["owed"] == before["owed_wei"]
        assert sums["settled"] == before["settled_wei"]
        assert sums["held"] + sums["settled"] == before["claimed_wei"]
        assert sums["vouched"] + sums["committed"] + sums["held"] + sums["settled"] == before["vouched_wei"]
        return sums

    sums = until("a claim", agreed)
    told = earned(folder, "--since", "7d")
    answers = told["by_kind"]["answers"]
    assert answers["held"] + answers["settled"] >= sums["held"] + sums["settled"] > 0
    assert set(told["gas_wei"].values()) == {0}, "gas is free on this chain, and what was sent is counted"
    assert all(row["day"] for row in told["earned"] if row["kind"] == "answers")
    assert earned(folder, "--since", "0h")["all_time"]["jobs"] == told["all_time"]["jobs"]


def earned(folder: Path, *more: str) -> Any:
    words = ["node", "earnings", "--config", str(folder / "config.json"), "--json", *more]
    done = subprocess.run(
        [sys.executable, "-m", "clusterai.cli", *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
