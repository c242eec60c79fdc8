"""What the documentation shows works: each example runs as its docstring says, and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.running import DEADLINE_S, Network

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROMISED = {
    "first_answer.py": "receipt: 0x",
    "streaming.py": "tokens]",
    "receipts.py": "stake 1000 CLAI (settled)",
}


def test_every_example_is_here():
    """A new example comes with what it promises to print."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == PROMISED.keys()


@pytest.mark.parametrize("name", PROMISED)
def test_example_runs(network: Network, name: str):
    """The example ends well and prints what it is for."""
    environment = os.environ | {
        "OPENAI_BASE_URL": network.ready["openai_base_url"],
        "OPENAI_API_KEY": network.ready["openai_api_key"],
    }
    arguments = [] if name == "receipts.py" else ["tiny"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert PROMISED[name] in done.stdout
