"""Once with real weights: what the toy model can't show."""

from collections.abc import Iterator

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
    until("the embedding model", lambda: "all-minilm-l6-v2" in {it["name"] for it in offers(real)})
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


def offers(network: Network) -> list[dict[str, object]]:
    return [model for node in network.http("nodes")["nodes"] for model in node["models"]]
