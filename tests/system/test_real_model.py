"""Once with real weights: what the toy model can't show."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.running import Network, until

pytestmark = [pytest.mark.system, pytest.mark.model]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    running = Network(tmp_path_factory.mktemp("real") / "data", model="smollm2-135m", nodes=1)
    try:
        yield running.up()
    finally:
        running.stop()


def test_what_is_listed_when_it_is_ready_can_be_asked_at_once(tmp_path: Path):
    """`ready` is said when every model that the network lists has a provider: nobody hears that there is none."""
    network = Network(tmp_path / "data", model="smollm2-135m", nodes=1)
    try:
        client = network.up().openai(max_retries=0)
        beside = ["all-minilm-l6-v2", "sealed-digits", "sealed-breast-cancer"]
        assert [it.id for it in client.models.list()] == ["smollm2-135m", *beside]
        digit = tmp_path / "digit.json"
        digit.write_text(json.dumps([[0] * 64]))
        assert network.told("infer", "--encrypted", "--model", "sealed-digits", str(digit))["requests"] == 1
        assert client.embeddings.create(model="all-minilm-l6-v2", input="Hello!").data
    finally:
        network.stop()


def test_a_language_model_answers_and_its_answer_is_drawn_again(real: Network):
    """The model knows the capital of France, and `audit replay` draws the same tokens."""
    answer = real.openai().chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=24,
        temperature=0,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    extra = answer.model_extra or {}
    report = real.told("audit", "replay", extra["clusterai"]["receipts"][0]["id"])
    assert report["outcome"] == "right"
    assert report["findings"]["tokens"] == len(report["texts"]) > 0


def test_texts_are_embedded_beside_the_chats_and_audited_like_them(real: Network):
    """`up` serves the embedding model too; its receipt is charged, replayed and settled as any other."""
    client = real.openai()
    before = real.told("account")["charged_wei"]
    answer = client.embeddings.create(
        model="all-minilm-l6-v2", input=["Paris is in France.", "Money is tight."]
    )
    assert [len(it.embedding) for it in answer.data] == [384, 384]
    told = (answer.model_extra or {})["clusterai"]
    assert (
        real.told("account")["charged_wei"] - before == told["price_wei"] == 100 * answer.usage.total_tokens
    )
    report = real.told("audit", "replay", told["receipts"][0]["id"])
    assert report["outcome"] == "right"
    assert report["findings"]["tokens"] == report["findings"]["matches"] == 2 * 384


def test_an_epoch_of_embeddings_is_drawn_audited_and_cleared_on_chain(tmp_path: Path):
    """In a network that only embeds, a receipt ends verified: the validator drew its epoch, computed it again, and cleared it."""
    network = Network(tmp_path / "data", model="all-minilm-l6-v2", nodes=1)
    try:
        client = network.up().openai()
        assert [it.id for it in client.models.list()] == ["all-minilm-l6-v2"]
        answers = [client.embeddings.create(model="all-minilm-l6-v2", input=f"text {at}") for at in range(12)]
        receipts = [(it.model_extra or {})["clusterai"]["receipts"][0]["id"] for it in answers]
        # The draw is random: an epoch with no drawn receipt needs no clearance, so one of many is waited for.
        until(
            "a receipt's epoch to be cleared",
            lambda: "cleared" in {epoch_state(network, it) for it in receipts},
        )
        assert not any(node["barred"] for node in network.http("nodes")["nodes"])
    finally:
        network.stop()


def epoch_state(network: Network, receipt: str) -> str:
    """How far the chain is with a receipt's epoch."""
    epoch: dict[str, str] | None = network.http(f"receipts/{receipt}")["epoch_on_chain"]
    return epoch["state"] if epoch else ""
