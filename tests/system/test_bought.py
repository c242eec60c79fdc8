"""A copy of sold data, from its price to the buyer's disk, between real processes: paid once, into escrow, granted, opened, checked."""

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.datasets import paying
from clusterai.cli.failure import Exit
from clusterai.cli.main import run
from clusterai.protocol.ids import digest
from clusterai.protocol.vaults import Operation
from clusterai.sdk.identity import Identity
from clusterai.vault.adapters.founding import found_vault
from clusterai.vault.adapters.importing import find
from clusterai.vault.core.policy import Policy
from tests.system.running import Network
from tests.system.vaulted import SCHEMA

pytestmark = pytest.mark.system

PRICE_WEI = 3 * 10**9
ROWS = 300


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two nodes, the first of which sells a copy of its data for three coins, without asking its owner."""
    folder = tmp_path_factory.mktemp("bought")
    data = folder / "wards.csv"
    with data.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("patient", "age", "ward"))
        out.writerows((at, 20 + at % 60, ("east", "west")[at % 2]) for at in range(ROWS))
    policy = Policy(
        operations=(Operation.QUERY, Operation.COPY),
        copy_wei=PRICE_WEI,
        auto_operations=(Operation.COPY,),
    )
    vault = found_vault(folder / "wards", "wards", folder / "wards.key", SCHEMA, find(data), policy)
    running = Network(folder / "data", vaults=[vault.root])
    try:
        yield running.up()
    finally:
        running.stop()


def test_a_copy_is_bought_once_and_fetched_twice(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too low a price is said before anything is paid; what is bought is what was put in; fetching it again costs nothing."""
    monkeypatch.setenv("CLUSTERAI_IDENTITY", str(tmp_path / "identity.json"))
    monkeypatch.setenv("CLUSTERAI_DATA", str(network.data))
    command = ["data", "buy", "wards", "--yes", "--json", "--to"]
    assert run([*command, str(tmp_path / "no.csv"), "--max-price", "2"]) == Exit.FAILED
    capsys.readouterr()
    grants: list[str] = []
    told: dict[str, object] = {}
    for name in ("first.csv", "second.csv"):
        assert run([*command, str(tmp_path / name), "--max-price", "3"]) == Exit.OK
        told = msgspec.json.decode(capsys.readouterr().out, type=dict[str, object])
        grants.append(str(told["grant"]))
        assert (told["rows"], told["price_wei"]) == (ROWS, PRICE_WEI)
        with (tmp_path / name).open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["patient"], row["ward"]) for row in rows[:2]] == [("0", "east"), ("1", "west")]
        assert len(rows) == ROWS
    assert grants[0] == grants[1]
    identity = Identity.load(tmp_path / "identity.json")
    again = (
        network.data,
        None,
        None,
        digest(str(told["dataset"])),
        digest(str(told["request"])),
        identity.address,
    )
    assert not paying.pay(*again, PRICE_WEI), "it was paid before"
    assert not list(tmp_path.glob(".*copy*"))
    assert run([*command, str(tmp_path / "first.csv"), "--max-price", "3"]) == Exit.BUSY
