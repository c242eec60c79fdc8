"""A network whose gateway, node and renter are three machines: namespaces that share no folder, two of them behind NATs that let nothing in."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rooms.cluster.renting import environment
from tests.rooms.mesh.hosts import Host, Internet
from tests.system.running import DEADLINE_S

pytestmark = [pytest.mark.system, pytest.mark.long]

PROGRAM = """
import ray
ray.init()
print("squares", ray.get([ray.remote(lambda it: it * it).remote(at) for at in range(4)]))
"""


class Machine:
    """Somebody's, with a home of its own."""

    def __init__(self, host: Host, home: Path) -> None:
        self.host, self.home = host, home
        home.mkdir()
        clean = {
            name: it
            for name, it in os.environ.items()
            if not name.startswith(("CLUSTERAI_", "OPENAI_", "RAY_"))
        }
        self.env = clean | {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}

    def run(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.host.enter, *words],
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * DEADLINE_S,
            env=self.env,
            cwd=self.home,
        )

    def cli(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "clusterai.cli", *words, typed=typed)

    def told(self, *words: str) -> Any:
        done = self.cli(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def internet() -> Iterator[Internet]:
    it = Internet()
    yield it
    it.close()


def test_a_renter_behind_a_nat_uses_a_machine_behind_another(internet: Internet, tmp_path: Path):
    """From three empty homes: a network, a node that gets its stake, an account, a rented cluster with a job and a shell, and nothing left."""
    host, address = internet.host()
    one = Machine(host, tmp_path / "gateway")
    owner = Machine(internet.behind_nat()[0], tmp_path / "owner")
    renter = Machine(internet.behind_nat(symmetric=True)[0], tmp_path / "renter")
    try:
        ready = one.told("up", "--detach", "--host", address, "--nodes", "1", "--model", "tiny")
        joining = ("node", "join", ready["console"], "--network-digest", ready["network_digest"])
        joining += ("--rent", "0.25", "--yes")
        poor = owner.cli(*joining)
        asked = re.search(r"clusterai account fund 1000 --to (0x[0-9a-fA-F]{40})", poor.stderr)
        assert asked, poor.stderr
        one.told("account", "fund", "1000", "--to", asked[1], "--yes")
        assert owner.told(*joining)["withheld"] == []

        opened = one.told("account", "open", "carol", "--credit", "20", "--yes")
        renter.env |= {"OPENAI_BASE_URL": ready["openai_base_url"], "OPENAI_API_KEY": opened["key"]}
        rented = renter.told("rent", "--hours", "0.5", "--yes")
        assert rented["connected"]
        placed = rented["rental"]

        (renter.home / "x.py").write_text(PROGRAM)
        lines = renter.cli("rent", "env", placed["id"]).stdout.splitlines()
        renter.env |= dict(
            it.removeprefix("export ").split("=", 1) for it in lines if it.startswith("export ")
        )
        submit = [str(environment() / "bin" / "ray"), "job", "submit", "--working-dir", ".", "--"]
        done = renter.run(*submit, "python", "x.py")
        assert "squares [0, 1, 4, 9]" in done.stdout + done.stderr
        assert renter.cli("rent", "shell", placed["id"], typed="exit 7\n").returncode == 7
        assert "Ray" in renter.cli("rent", "logs", placed["id"]).stdout
        assert renter.cli("rent", "release", placed["id"], "--yes").returncode == 0
        assert "clr" not in renter.host.run("ip", "-o", "link")
    finally:
        # Else its end of the mesh goes on where something failed.
        for it in json.loads(renter.cli("rent", "list", "--json").stdout or "{}").get("rentals", []):
            renter.cli("rent", "disconnect", it["id"])
        owner.cli("node", "drain")
        one.cli("down")
