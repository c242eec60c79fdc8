"""A pot for a federated run, put up before it and shared out by what its card says."""

import json
from pathlib import Path
from typing import Any

from tests.system.running import Network


def told(network: Network, *words: str) -> Any:
    done = network.cli("data", "reward", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def put_up(network: Network, app: Path, names: tuple[str, ...], identity: Path) -> str:
    """For the vaults of the first nodes, which join with what they have; the pot's id."""
    study = app.with_name("study.json")
    run = {"app": app.name, "lineage": f"{app.name}-run/lineage.json"}
    study.write_text(json.dumps(run | {"contributions": [{"vault": name} for name in names]}))
    pot = told(network, "open", str(study), "--amount", "9", "--identity", str(identity), "--yes")["pot"]
    for at, name in enumerate(names, 1):
        vault = ("--vault", str(network.data.parent / name), "--stays")
        told(
            network, "join", pot, *vault, "--key", str(network.data / "keys" / f"node-{at}.hot.key"), "--yes"
        )
    return pot


def scored(network: Network, app: Path, pot: str) -> dict[str, float]:
    """The rounds that each vault is paid for; whoever makes the scores again finds the same."""
    study = str(app.with_name("study.json"))
    found = told(network, "score", pot, study, "--yes")
    assert found["nothing"] == {}
    assert told(network, "check", pot, study)["same"] is True
    return {it["vault"]: it["score"] for it in found["contributors"]}
