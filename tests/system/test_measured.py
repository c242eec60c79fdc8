"""A machine that joins is measured by itself, and its card says so."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.system.running import Network, until

pytestmark = pytest.mark.system


def test_a_machine_of_the_network_gets_a_measured_card(network: Network):
    """Nobody asks for it: a beacon draws the validator, which examines the node and tells it what it found."""
    config = str(network.data / "node-1" / "config.json")
    command = [sys.executable, "-m", "clusterai.cli", "node", "card", "--config", config, "--json"]

    def card() -> Any:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    found = until("a measured card", card)
    kinds = {(line["name"], line["kind"]) for line in found["lines"]}
    assert ("cpu_milli", "claimed") in kinds
    assert ("cpu_milli", "measured") in kinds
    assert ("links_per_s_milli", "measured") in kinds
    assert ("round_trip_us", "measured") in kinds
