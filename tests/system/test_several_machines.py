"""One owner, two machines on one network: both work, both are the owner's to see, and whoever wants two operators doesn't get them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.running import Network, until
from tests.system.test_joining import drain, join

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network whose own node isn't rented out: what is on offer is the owner's."""
    running = Network(tmp_path_factory.mktemp("network") / "data", nodes=1)
    try:
        yield running.up()
    finally:
        running.stop()


def node(word: str, folder: Path, *more: str) -> Any:
    words = ["node", word, "--folder", str(folder), "--json", *more]
    done = subprocess.run(
        [sys.executable, "-m", "clusterai.cli", *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_owner_runs_two_machines(network: Network, tmp_path: Path):
    """The second is refused under the first's account with the command that works; joined by it, both get work and are paid,
    are listed and summed under one owner, count as one operator in plans, and their money comes to the owner."""
    first, second = tmp_path / "first", tmp_path / "second"
    key = str(first / "owner.key")
    try:
        done = join(network, first, "--rent", "0.25")
        assert done.returncode == 0, done.stderr
        owner = json.loads(done.stdout)["provider"]

        refused = join(network, second, "--owner-key", key, "--rent", "0.25")
        assert refused.returncode != 0
        assert f"clusterai node join --machine 2 --owner-key {key}" in " ".join(refused.stderr.split())
        done = join(network, second, "--machine", "2", "--owner-key", key, "--rent", "0.25")
        assert done.returncode == 0, done.stderr
        account = json.loads(done.stdout)["provider"]
        assert account != owner
        assert not (second / "owner.key").exists(), "the owner's key stays where it is"

        def offered() -> list[Any] | None:
            found = network.http("offers")["offers"]
            return (
                found if sum(it["belongs_to"] is not None for it in found) == 1 and len(found) == 2 else None
            )

        offers = until("both to be offered, and whose they are", offered)
        assert {(it["operator"], it["belongs_to"]) for it in offers} == {(owner, None), (account, owner)}

        asked = ("rent", "--nodes", "2", "--hours", "1", "--dry-run", "--same-operator")
        assert {it["operator"] for it in network.told(*asked, "yes")["plan"]["machines"]} == {owner, account}
        apart = network.cli(*asked, "no", "--json")
        assert apart.returncode != 0
        assert "per operator" in apart.stdout + apart.stderr

        # `only`: of several, one that is better would get all of a few.
        client = network.openai()
        for provider in (owner, account):
            client.chat.completions.create(
                model=network.model,
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=16,
                extra_body={"provider": {"only": [provider]}},
            )
        listed = node("machines", first)
        assert listed["owner"] == owner
        assert [(it["number"], it["account"]) for it in listed["machines"]] == [(1, owner), (2, account)]
        assert set(listed["states"].values()) == {"ready"}

        def earned() -> Any:
            found = node("earnings", first, "--all")
            sums = [it["all_time"]["answers"] for it in found["machines"]]
            return found if all(sum(it.values()) for it in sums) and sums[1]["settled"] else None

        found = until("both to have earned, and the second to be paid", earned)
        assert [(it["account"], it["here"]) for it in found["machines"]] == [(owner, True), (account, False)]
        assert found["together"]["settled"] == sum(
            it["by_kind"][kind]["settled"] for it in found["machines"] for kind in ("answers", "jobs")
        )

        assert drain(second)
        brought = node("collect", first, "--leave", "2", "--yes")
        assert brought["amount_wei"] > 0
        (_, two) = node("machines", first)["machines"]
        assert (two["stake_wei"], two["unbonding_wei"]) == (0, 1000 * 10**9)
    finally:
        drain(second)
        drain(first)
