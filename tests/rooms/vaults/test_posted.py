"""Listings that are brought by HTTP: who may, how many, for how long; and public data from publishing to a stranger's disk."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.cli.failure import Exit
from clusterai.cli.main import run
from clusterai.gateway.core.posted import ACCOUNT_LISTINGS, LISTED_S, Posted, providers
from clusterai.gateway.core.shelf import Shelf
from clusterai.protocol import canonical
from clusterai.protocol.calls import DataListing, OfferData
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import BadSignature, Key, recover
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import dataset_id
from tests.rooms.gateway.bed import Bed
from tests.rooms.vaults.listings import listed

NETWORK = network_domain(31415, Address(b"r" * 20))
OWNER, THIEF = (Key(bytes([n]) * 32) for n in (1, 2))
MINE, OTHER = Digest(b"m" * 32), Digest(b"o" * 32)
NOW = 1_000_000


def fresh() -> tuple[Posted, Shelf]:
    def signer(digest: Digest, signature: bytes) -> Address | None:
        try:
            return recover(digest, signature)
        except BadSignature:
            return None

    shelf = Shelf(NETWORK, signer, dict[Address, Address]().get)
    return Posted(shelf), shelf


def raw(said: DataListing) -> bytes:
    return canonical.encode(said)


def test_a_listing_stands_for_a_day_and_longer_when_it_is_brought_again() -> None:
    """Nobody linked has it, and none is shown as having it."""
    posted, shelf = fresh()
    said = listed(OWNER, NETWORK, "numbers")
    dataset = dataset_id(OWNER.address, "numbers")
    assert posted.take(MINE, raw(said), NOW) == (dataset, NOW + LISTED_S)
    assert providers(shelf.datasets[dataset]) == []
    assert posted.take(MINE, raw(said), NOW + 1000) == (dataset, NOW + 1000 + LISTED_S)
    posted.expire(NOW + LISTED_S + 999)
    assert dataset in shelf.datasets
    posted.expire(NOW + LISTED_S + 1000)
    assert dataset not in shelf.datasets


def test_a_stale_listing_does_not_come_back() -> None:
    """An older serial is refused after a newer one, also when the newer has run out."""
    posted, _ = fresh()
    assert not isinstance(posted.take(MINE, raw(listed(OWNER, NETWORK, "n", serial=5)), NOW), str)
    assert "serial 4 after 5" in str(posted.take(OTHER, raw(listed(OWNER, NETWORK, "n", serial=4)), NOW))
    assert "serial" in str(posted.take(OTHER, raw(listed(OWNER, NETWORK, "n", serial=4)), NOW + 2 * LISTED_S))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93",
        raw(listed(THIEF, NETWORK, "n", OWNER.address)),
        raw(listed(THIEF, NETWORK, "n", dataset=dataset_id(OWNER.address, "n"))),
        raw(msgspec.structs.replace(listed(OWNER, NETWORK, "n"), card=b"{}")),
        raw(listed(OWNER, NETWORK, "n")) + b"\0",
        b"\xdd\xff\xff\xff\xff" + bytes(100),
    ],
)
def test_what_is_no_listing_of_its_owner_is_refused(body: bytes) -> None:
    """Not decoded, not signed by the owner, another card: nothing is listed, and why is said."""
    posted, shelf = fresh()
    assert isinstance(posted.take(MINE, body, NOW), str)
    assert not shelf.datasets


def test_an_account_lists_only_so_many() -> None:
    """Another account still has room, and a listing that runs out makes some."""
    posted, _ = fresh()
    for number in range(ACCOUNT_LISTINGS):
        assert not isinstance(posted.take(MINE, raw(listed(OWNER, NETWORK, f"n{number}")), NOW), str)
    more = raw(listed(OWNER, NETWORK, "more"))
    assert "at a time" in str(posted.take(MINE, more, NOW))
    assert not isinstance(posted.take(OTHER, more, NOW), str)
    assert not isinstance(posted.take(MINE, raw(listed(OWNER, NETWORK, "later")), NOW + LISTED_S), str)


def test_a_linked_provider_keeps_it_listed() -> None:
    """What was posted runs out, what a provider has stays; the other way round too."""
    posted, shelf = fresh()
    said, provider = listed(OWNER, NETWORK, "n"), Address(b"p" * 20)
    dataset = dataset_id(OWNER.address, "n")
    posted.take(MINE, raw(said), NOW)
    shelf.heard(provider, OfferData((said,), (), ()))
    posted.expire(NOW + LISTED_S)
    assert providers(shelf.datasets[dataset]) == [provider]
    posted.take(MINE, raw(said), NOW + LISTED_S)
    shelf.unlinked(provider)
    assert dataset in shelf.datasets


# --- a whole gateway ---


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("posted"), providers=0, wallets=False, serve=["tiny"]) as bed:
        yield bed


@pytest.fixture
def environment(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{bed.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", bed.key)
    monkeypatch.setenv("CLUSTERAI_IDENTITY", str(tmp_path / "identity.json"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CLUSTERAI_DATA", raising=False)


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["data", *arguments, "--json"]) == Exit.OK
    return msgspec.json.decode(capsys.readouterr().out, type=dict[str, Any])


@pytest.mark.usefixtures("environment")
def test_from_a_folder_to_a_strangers_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Published, held by a process, found by its words, shown, fetched by its id; a private holder only where that is said."""
    folder = tmp_path / "rivers"
    folder.mkdir()
    (folder / "README.md").write_text("# Rivers\n\nLengths of rivers in kilometres.\n")
    (folder / "rivers.csv").write_text("name,km\nNile,6650\nAmazon,6400\n")
    (folder / "noise.bin").write_bytes(os.urandom(300_000))
    assert run(["data", "publish", str(folder), "--offline", "--quiet"]) == Exit.OK
    command = [sys.executable, "-m", "clusterai.cli", "data", "hold", str(folder), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            url = holder.stdout.readline().strip()
            published = answered(capsys, "publish", str(folder), "--holder", url, "--licence", "CC0-1.0")
            dataset = published["dataset"]
            found = answered(capsys, "search", "rivers", "kilometres")["data"]
            assert [(it["dataset"], it["kind"]) for it in found] == [(dataset, "files")]
            assert answered(capsys, "search", "mountains")["data"] == []
            assert answered(capsys, "show", dataset)["license"] == "CC0-1.0"
            to = str(tmp_path / "to")
            assert run(["data", "fetch", dataset, "--to", to]) == Exit.NOT_FOUND
            assert "--private" in capsys.readouterr().err
            got = answered(capsys, "fetch", dataset, "--to", to, "--private")
        finally:
            holder.terminate()
    assert got["address"] == published["address"]
    assert (tmp_path / "to/rivers.csv").read_text() == (folder / "rivers.csv").read_text()


@pytest.mark.usefixtures("environment")
def test_a_strangers_listing_and_a_missing_key(bed: Bed, tmp_path: Path) -> None:
    """400 with the reason, 401 without a key, 413 where it is too large, 404 for what nobody lists."""
    assert bed.fetch("POST", "/v1/clusterai/data", b"nonsense", bed.key)[0] == 400
    assert bed.fetch("POST", "/v1/clusterai/data", b"nonsense", "sk-clusterai-wrong")[0] == 401
    assert bed.fetch("POST", "/v1/clusterai/data", bytes(200_000), bed.key)[0] == 413
    assert run(["data", "fetch", "0x" + "ab" * 32, "--to", str(tmp_path / "x")]) == Exit.NOT_FOUND


@pytest.mark.usefixtures("environment")
def test_a_vault_is_asked_and_not_fetched(
    bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card of private data says where to ask, and fetching it is refused."""
    told = msgspec.json.decode(bed.fetch("GET", "/v1/clusterai/network")[2])["manifest"]
    network = network_domain(told["chain_id"], Address(bytes.fromhex(told["contracts"]["registry"][2:])))
    said = listed(OWNER, network, "hearts", clusterai={"kind": "vault"})
    assert bed.fetch("POST", "/v1/clusterai/data", raw(said), bed.key)[0] == 200
    dataset = "0x" + dataset_id(OWNER.address, "hearts").hex()
    assert run(["data", "fetch", dataset, "--to", str(tmp_path / "x")]) == Exit.FAILED
    assert "data request" in capsys.readouterr().err
