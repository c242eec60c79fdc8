"""The network in one command, used as a newcomer would: toy model, all processes real."""

import stat
from typing import Any

import pytest
from openai import AuthenticationError, OpenAI

from clusterai.sdk import Client
from tests.system.running import DEADLINE_S, Network, until

pytestmark = pytest.mark.system

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]


def ask(client: OpenAI, **options: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 16, "seed": 1} | options
    create: Any = client.chat.completions.create
    return create(**asked)


def receipt_of(answer: Any) -> str:
    return answer.clusterai["receipts"][0]["id"]


def is_refused(client: OpenAI) -> bool:
    try:
        ask(client)
    except AuthenticationError:
        return True
    return False


def test_an_unmodified_client_is_answered_with_a_receipt(network: Network):
    """An answer carries the id of a receipt that anyone may look up, and states its price."""
    answer = ask(network.openai())
    assert answer.choices[0].message.content
    receipt = network.told("receipt", "show", receipt_of(answer))
    assert receipt["output_units"] == answer.usage.completion_tokens
    assert receipt["price_wei"] == answer.clusterai["price_wei"] > 0


def test_equal_seeds_give_equal_answers_streamed_or_not(network: Network):
    """The answer is a function of prompt and seed, whoever serves it and however it is sent."""
    client = network.openai()
    whole = ask(client, seed=7, max_tokens=40).choices[0].message.content
    stream = ask(client, seed=7, max_tokens=40, stream=True, stream_options={"include_usage": True})
    parts = list(stream)
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == whole
    assert parts[-1].usage.completion_tokens > 0


def test_what_is_charged_is_the_sum_of_receipts(network: Network):
    """Credit goes down by exactly what the receipts say."""
    before = network.told("account")["charged_wei"]
    answers = [ask(network.openai()) for _ in range(3)]
    assert network.told("account")["charged_wei"] == before + sum(it.clusterai["price_wei"] for it in answers)


def test_a_replayed_audit_finds_an_honest_answer_right(network: Network):
    """`audit replay` checks signatures, usage and every token on this machine."""
    report = network.told("audit", "replay", receipt_of(ask(network.openai(), max_tokens=60)))
    assert report["outcome"] == "right"
    findings = report["findings"]
    assert findings["matches"] == findings["tokens"] == len(report["texts"]) > 0


def test_an_epoch_is_committed_audited_and_cleared_on_chain(network: Network):
    """Honest work ends verified: its epoch is committed by the node and cleared by the validator."""
    receipts = [receipt_of(ask(network.openai())) for _ in range(12)]
    # The draw is random: an epoch with no drawn receipt needs no clearance, so one of many is waited for.
    until(
        "a receipt to be verified or settled",
        lambda: any(network.http(f"receipts/{it}")["state"] in ("verified", "settled") for it in receipts),
        3 * DEADLINE_S,
    )
    assert not any(node["barred"] for node in network.http("nodes")["nodes"])


def test_credit_can_be_added_and_keys_made_and_revoked(network: Network):
    """A deposit of the faucet becomes credit; a new key spends it; a revoked one is refused."""
    before = network.told("account")["funded_wei"]
    assert network.cli("account", "fund", "2.5", "--yes").returncode == 0
    until("the deposit", lambda: network.told("account")["funded_wei"] == before + 2_500_000_000)
    made = network.told("account", "keys", "--new", "second")
    client = network.openai(api_key=made["key"], max_retries=0)
    assert ask(client).choices
    assert network.cli("account", "keys", "--revoke", made["id"], "--yes").returncode == 0
    until("the key to be refused", lambda: is_refused(client))
    assert made["id"] not in {key["id"] for key in network.told("account")["keys"]}


def test_others_are_let_in(network: Network):
    """An account opened for somebody spends its own credit, and a machine that joins from elsewhere gets tokens for its stake."""
    opened = network.told("account", "open", "guest", "--credit", "3", "--yes")
    with Client(network.ready["console"], opened["key"]) as client:
        until("the guest's credit", lambda: client.account().funded_wei == 3_000_000_000)
    given = network.told("account", "fund", "1000", "--to", "0x" + "7b" * 20, "--yes")
    assert given["address"] == "0x" + "7b" * 20


def test_the_doctor_finds_a_running_network_well(network: Network):
    """No row about the network is red."""
    rows = {row["name"]: row for row in network.told("node", "doctor", "--model", "tiny")["rows"]}
    assert {
        rows[name]["state"] for name in ("processes", "node-1 chain", "node-1 gateway", "node-2 clock")
    } == {"green"}


def test_status_and_top_tell_what_runs(network: Network):
    """`status --json` names five processes, all ready; `top` draws one picture where no terminal is."""
    status = network.told("status")
    assert status["healthy"]
    assert [one["name"] for one in status["services"]] == [
        "chain",
        "gateway",
        "validator",
        "node-1",
        "node-2",
    ]
    picture = network.cli("top")
    assert picture.returncode == 0
    assert "2 nodes linked" in picture.stdout


def test_secrets_are_readable_by_their_owner_alone(network: Network):
    """Key files, the account's key and the data folder let nobody else in."""
    secrets = [
        *(network.data / "keys").iterdir(),
        network.data / "account.json",
        network.data / "gateway" / "admin.key",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE(network.data.stat().st_mode) == 0o700


def test_a_second_up_on_the_folder_is_refused_with_the_cure(network: Network):
    """Two networks can't write one folder; the message names the commands that help. Exit code 4."""
    second = network.cli("up", "--port", str(network.port + 400))
    assert second.returncode == 4
    assert "already runs" in second.stderr
    assert "clusterai down" in second.stderr


def test_a_port_in_use_is_told_with_another_that_is_free(network: Network, tmp_path: Any):
    """Exit code 4, and a command line that would work."""
    other = Network(tmp_path / "other")
    refused = other.cli("up", "--port", str(network.port))
    assert refused.returncode == 4
    assert f"port {network.port}" in refused.stderr
    assert "--port" in refused.stderr


def test_stake_is_put_behind_a_validator_and_taken_back(network: Network):
    """It votes at once, is to be withdrawn after the delay, and what can't be is refused with the cure."""
    [before] = network.told("stake", "show")["validators"]
    name = before["validator"]
    done = network.told("stake", "delegate", name, "2.5", "--yes")
    assert (done["amount_wei"], len(done["transactions"])) == (2_500_000_000, 2)
    stakes = network.told("stake")
    [after] = stakes["validators"]
    assert after["votes_wei"] == before["votes_wei"] + 2_500_000_000 == after["own_wei"] + 2_500_000_000
    assert stakes["delegations"][0]["waiting_wei"] == 2_500_000_000
    assert len(network.told("stake", "undelegate", name[:9], "1", "--yes")["transactions"]) == 1
    [mine] = network.told("stake", "show")["delegations"]
    assert mine["waiting_wei"] == 1_500_000_000
    assert [one["amount_wei"] for one in mine["leaving"]] == [1_000_000_000]
    assert len(network.told("stake", "commission", "7.5", "--yes")["transactions"]) == 1
    early = network.cli("stake", "withdraw", "--yes")
    assert early.returncode == 1
    assert "ready in" in early.stderr
    full = network.cli("stake", "delegate", name, "3000", "--yes")
    assert full.returncode == 1
    assert "room for" in full.stderr


def test_credit_that_was_not_spent_can_be_withdrawn(network: Network):
    """What the faucet put on the account goes back to it on chain; more than that isn't there to take."""
    before = network.told("account")["credit_wei"]
    paid = network.told("account", "withdraw", "1.5", "--yes")
    assert paid["state"] == "paid"
    assert paid["amount_wei"] == 1_500_000_000
    after = network.told("account")
    assert (after["credit_wei"], after["withdrawn_wei"]) == (before - 1_500_000_000, 1_500_000_000)
    assert network.cli("account", "withdraw", "nothing").returncode == 2
    other = network.cli("account", "withdraw", "--wallet", "--yes")
    assert other.returncode == 1
    assert "may withdraw 0 wei" in other.stderr
