"""Embeddings by the unmodified `openai` client, through a real gateway from a real node with a real model."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.rooms.gateway.bed import Bed

MODEL = "all-minilm-l6-v2"
BODY = json.dumps({"model": MODEL, "input": "hello"}).encode()


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("embeddings")
    with Bed(folder, providers=0, nodes=1, model=MODEL) as it:
        yield it


@pytest.fixture
def client(bed: Bed) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{bed.url}/v1", api_key=bed.key, max_retries=0) as it:
        yield it


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_texts_become_vectors_that_mean_something(client: OpenAI, bed: Bed):
    """Near meanings are near; the receipt covers the tokens that were counted here."""
    before = bed.spent()
    texts = ["a cat sleeps on the sofa", "a kitten naps on the couch", "interest rates rose"]
    answer = client.embeddings.create(model=MODEL, input=texts)
    cat, kitten, rates = (it.embedding for it in answer.data)
    assert len(cat) == 384
    assert dot(cat, cat) == pytest.approx(1, abs=1e-3)
    assert dot(cat, kitten) > dot(cat, rates) + 0.3
    told: Any = answer.model_extra
    assert bed.spent() - before == told["clusterai"]["price_wei"] == 3 * answer.usage.prompt_tokens


def test_one_vector_is_the_same_however_it_is_asked_for(client: OpenAI):
    """As numbers, as base64 (which the client unpacks), alone or in a batch that takes several orders."""
    numbers = client.embeddings.create(model=MODEL, input="hello", encoding_format="float").data[0].embedding
    packed = client.embeddings.create(model=MODEL, input=["hello"] * 20).data
    assert len(packed) == 20
    assert packed[19].embedding == pytest.approx(numbers, abs=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "x " * 600},
        {"input": ""},
        {"input": []},
        {"input": "x", "dimensions": 7},
        {"input": [1, "x"]},
    ],
)
def test_what_can_not_be_embedded_is_a_400(client: OpenAI, fields: dict[str, Any]):
    """Texts that are too long are refused, never cut off in silence."""
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=MODEL, **fields)


def test_an_embedding_model_does_not_chat(client: OpenAI):
    """The message says what it is for."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "unsupported_model"


def test_many_texts_are_embedded_a_few_orders_at_a_time(client: OpenAI, bed: Bed):
    """Eleven orders of one request: all vectors come, in order, and the receipts add up to what is charged."""
    before = bed.spent()
    answer = client.embeddings.create(model=MODEL, input=[f"{at} cats" for at in range(170)])
    assert [it.index for it in answer.data] == list(range(170))
    again = client.embeddings.create(model=MODEL, input="169 cats")
    assert answer.data[169].embedding == pytest.approx(again.data[0].embedding, abs=1e-4)
    told: Any = answer.model_extra
    assert len(told["clusterai"]["receipts"]) == 11
    charged = told["clusterai"]["price_wei"] + 3 * again.usage.total_tokens
    assert bed.spent() - before == charged


def test_a_wallet_is_told_the_price_of_vectors(bed: Bed):
    """Without a key, the answer is 402 with terms, priced by the texts' tokens."""
    bed.until(lambda: bed.fetch("POST", "/v1/embeddings", BODY)[0] != 503, "payments by wallet")
    status, headers, _ = bed.fetch("POST", "/v1/embeddings", BODY)
    assert status == 402
    terms = json.loads(base64.b64decode(headers["payment-required"]))
    assert {offer["amount"] for offer in terms["accepts"]} == {str(3 * 3)}
