"""A villain: a gateway that lists a stranger's key in a vault's place. Whatever a requester types, it asks the chain, and sends nothing."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from clusterai.cli import main as cli
from clusterai.cli.failure import Exit
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, hex0x
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Listing, dataset_id
from clusterai.sdk.vaults import Listed, Vaults
from tests.system.running import ROOT, Network
from tests.system.vaulted import vault_at

pytestmark = pytest.mark.system

APP = str(ROOT / "examples" / "flower-app")
ORDER = "0x" + "11" * 32


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One node with a vault that is as it should be."""
    folder = tmp_path_factory.mktemp("stranger")
    running = Network(folder / "data", nodes=1, validators=1, vaults=[vault_at(folder).root])
    try:
        yield running.up()
    finally:
        running.stop()


class Liar:
    """A gateway's front that shows one data set, and counts what is brought to it.

    Args:
        invitation: as the true gateway says which network this is.
    """

    def __init__(self, invitation: bytes) -> None:
        self.shown: dict[str, Any] = {}
        self.sent: list[str] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/network"):
                    return self._say(invitation)
                if self.path.partition("?")[0].endswith("/data"):
                    return self._say(msgspec.json.encode({"data": [liar.shown], "next": ""}))
                return self._say(msgspec.json.encode(liar.shown))

            def do_POST(self) -> None:
                liar.sent.append(self.path)
                self._say(b"{}", 503)

            def _say(self, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its parent's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def lists(self, true: Listed, owner: Address, key: Key) -> None:
        """The same vault, but that calls to it are sealed to this liar."""
        said = true.listing
        card = {**true.card, "clusterai": {**true.card["clusterai"], "seal_to": "0x" + "09" * 32}}
        written = msgspec.json.encode(card)
        listing = Listing(
            dataset_id(owner, true.name),
            owner,
            canonical.content_digest(written),
            said.snapshot,
            said.policy,
            said.noise_commit,
            said.serial + 1,
        )
        self.shown = {
            "dataset": hex0x(listing.dataset),
            "owner": hex0x(owner),
            "serial": listing.serial,
            "snapshot": hex0x(said.snapshot),
            "policy": hex0x(said.policy),
            "card": card,
            "listing": base64.b64encode(canonical.encode(listing)).decode(),
            "signature": hex0x(key.sign(listing.signing_digest(true.network))),
            "holders": [],
        }


@pytest.fixture
def liar(network: Network) -> Iterator[Liar]:
    told = httpx.get(f"{network.ready['openai_base_url']}/clusterai/network")
    made = Liar(told.content)
    yield made
    made.stop()


def true(network: Network) -> Listed:
    async def main() -> Listed:
        async with Vaults(network.ready["openai_base_url"], network.ready["openai_api_key"]) as vaults:
            async for found in vaults.find("hearts"):
                return found
        raise AssertionError("the vault is listed when its network is ready")

    return asyncio.run(main())


def commands(name: str, folder: Path) -> dict[str, list[str]]:
    """All that a requester types about a vault."""
    program = str(folder / "mean.py")
    return {
        "show": ["data", "show", name],
        "fetch": ["data", "fetch", name, "--to", str(folder / "fetched")],
        "buy": ["data", "buy", name, "--to", str(folder / "bought.csv"), "-y"],
        "request": ["data", "request", name, "--purpose", "beds", "-y"],
        "review": ["data", "review", name, "--program", program],
        "result": ["data", "result", name, ORDER],
        "query": ["query", "select count(*) from hearts", "--vault", name, "--epsilon", "0.1", "-y"],
        "ask to train": ["train", "request", APP, "--vaults", name, "--purpose", "beds", "-y"],
        "train": [
            *("train", "federated", APP, "--vaults", name, "--epsilon", "1", "--no-secure-aggregation", "-y"),
            *("--out", str(folder / "run")),
        ],
    }  # fmt: skip


@pytest.mark.parametrize("whose", ["in the owner's name", "in its own"])
def test_nothing_is_sent_to_a_stranger(
    network: Network,
    liar: Liar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    whose: str,
) -> None:
    """Every command of a requester ends with the chain's word against the gateway's, by name and by id."""
    manifest = network.data / "network.json"
    data, key = true(network), Key(b"\x05" * 32)
    owner = Address(data.listing.owner) if whose == "in the owner's name" else key.address
    liar.lists(data, owner, key)
    (tmp_path / "mean.py").write_text("print(1)\n")
    monkeypatch.setenv("OPENAI_BASE_URL", liar.url)
    monkeypatch.setenv("CLUSTERAI_NETWORK", str(manifest))
    monkeypatch.setenv("CLUSTERAI_IDENTITY", str(tmp_path / "identity.json"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.delenv("CLUSTERAI_DATA", raising=False)
    for what, words in commands(liar.shown["dataset"], tmp_path).items():
        assert cli.run(words) == Exit.UNTRUE, what
        assert "isn't signed by a key of its owner" in capsys.readouterr().err, what
    assert cli.run(commands("hearts", tmp_path)["query"]) == Exit.UNTRUE
    capsys.readouterr()
    assert cli.run(["data", "search", "--json"]) == Exit.OK
    found = capsys.readouterr()
    assert json.loads(found.out) == {"data": []}
    assert "isn't signed by a key of its owner" in found.err
    assert cli.run(["data", "grants", "hearts", "--json"]) == Exit.OK
    assert "hearts" in json.loads(capsys.readouterr().out)["missing"]
    assert liar.sent == []


def test_the_true_vault_is_believed(network: Network) -> None:
    """The same commands with the true gateway go on: the chain vouches for the vault."""
    [found] = network.told("data", "search", "hearts")["data"]
    assert network.cli("data", "show", found["dataset"]).returncode == 0
    assert network.told("data", "request", "hearts", "--purpose", "beds", "-y")["state"] in (
        "approved",
        "granted",
    )


def test_a_manifest_of_another_network_says_so(
    network: Network, liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signatures of one network prove nothing in another: a data set is only believed under the manifest's own domain."""
    data = true(network)
    other = Domain(data.network.name, data.network.version, data.network.chain_id, Address(b"\x01" * 20))
    liar.lists(msgspec.structs.replace(data, network=other), Address(data.listing.owner), Key(b"\x05" * 32))
    monkeypatch.setenv("OPENAI_BASE_URL", liar.url)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.delenv("CLUSTERAI_DATA", raising=False)
    words = ["data", "show", liar.shown["dataset"], "--network", str(network.data / "network.json")]
    assert cli.run(words) == Exit.UNTRUE
