"""Nothing acknowledged is lost: not by an end, not by `kill -9` of any process, not by that of the supervisor."""

import contextlib
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.running import Network, until

pytestmark = pytest.mark.system


def answered(network: Network, **options: Any) -> Any:
    """One completion, asked for again while something restarts."""
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 12,
        "seed": 1,
    } | options
    headers = {"Authorization": f"Bearer {network.ready['openai_api_key']}"}

    def ask() -> Any:
        with contextlib.suppress(httpx.TransportError):
            response = httpx.post(
                f"{network.ready['openai_base_url']}/chat/completions",
                json=body,
                headers=headers,
                timeout=120,
            )
            if response.status_code == 200:
                return response.json()
            assert response.status_code in (429, 502, 503), response.text
        return None

    return until("an answer", ask)


def balance(network: Network) -> dict[str, int]:
    account = network.told("account")
    return {name: account[name] for name in ("credit_wei", "funded_wei", "charged_wei", "refunded_wei")}


def stakes(network: Network) -> dict[str, int]:
    return {node["provider"]: node["stake_wei"] for node in network.http("nodes")["nodes"]}


def ids(network: Network) -> list[str]:
    return [it["id"] for it in network.told("receipt", "list", "--limit", "500")["receipts"]]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie, whose parent has yet to look, doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_up_resumes_with_balances_receipts_stakes_and_key(fresh: Network):
    """What was true before `down` is true after `up`, and the old key still spends."""
    fresh.up()
    key = fresh.ready["openai_api_key"]
    for _ in range(3):
        answered(fresh)
    before = balance(fresh), ids(fresh), stakes(fresh)
    pids = [one["pid"] for one in fresh.services().values()]
    assert fresh.cli("down").returncode == 0
    assert fresh.ended() == 0
    assert not any(alive(pid) for pid in pids)
    fresh.up()
    assert fresh.ready["openai_api_key"] == key
    until("the same as before", lambda: (balance(fresh), ids(fresh), stakes(fresh)) == before)
    answered(fresh)


def test_when_the_supervisor_is_killed_nothing_of_it_lives_on(fresh: Network):
    """`kill -9` of `up` ends every process that it started; the next `up` resumes."""
    fresh.up()
    answered(fresh)
    before = ids(fresh)
    pids = [one["pid"] for one in fresh.services().values()]
    fresh.stop(signal.SIGKILL)
    until("all processes to end", lambda: not any(alive(pid) for pid in pids))
    fresh.up()
    assert ids(fresh) == before


@pytest.mark.parametrize("victim", ["chain", "gateway", "validator", "node-1"])
def test_a_killed_process_comes_back_and_nothing_is_lost(network: Network, victim: str):
    """`kill -9` of any process: it restarts, answers go on, and what is charged stays the sum of receipts."""
    answered(network)
    before = set(ids(network))
    restarts = network.kill(victim)
    answered(network)
    network.until_back(victim, restarts)
    network.until_serving(2)
    answered(network)
    assert before < set(ids(network))
    charged = sum(it["price_wei"] for it in network.told("receipt", "list", "--limit", "500")["receipts"])
    assert balance(network)["charged_wei"] == charged
