"""Once with real weights: what the toy model can't show."""

from collections.abc import Iterator

import pytest

from tests.system.running import Network

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
