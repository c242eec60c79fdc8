"""The unmodified `openai` client against a real gateway on a real chain."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.rooms.gateway.bed import Bed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("openai")
    with Bed(folder) as it:
        yield it


@pytest.fixture
def client(bed: Bed) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{bed.url}/v1", api_key=bed.key, max_retries=0) as it:
        yield it


HELLO: list[Any] = [{"role": "user", "content": "hello"}]
"""Who counts tokens gives a seed: one draw of 769 ends an answer at once."""


def test_a_chat_is_answered_with_usage_and_a_receipt(client: OpenAI, bed: Bed):
    """Text, finish reason, usage and what it cost come back in one object."""
    before = bed.spent()
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=5, seed=1)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    told: Any = answer.model_extra
    assert told["clusterai"]["price_wei"] == 3 * answer.usage.total_tokens
    assert bed.spent() - before == told["clusterai"]["price_wei"]


def test_the_same_seed_gives_the_same_answer_streamed_or_not(client: OpenAI):
    """An answer is a function of weights, prompt and seed."""
    whole = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=7)
    pieces = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=7, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
    assert text == whole.choices[0].message.content


def test_a_stream_tells_its_usage_when_asked(client: OpenAI):
    """With include_usage the last chunk has no choices and all the numbers."""
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            max_tokens=4,
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert all(chunk.usage is None for chunk in chunks[:-1])
    told: Any = chunks[-1].model_extra
    assert told["clusterai"]["receipts"]


def test_several_choices_differ_and_each_has_its_receipt(client: OpenAI):
    """n answers are n orders with n seeds."""
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, n=3, seed=3)
    texts = {choice.message.content for choice in answer.choices}
    assert len(texts) == 3
    told: Any = answer.model_extra
    assert len({receipt["id"] for receipt in told["clusterai"]["receipts"]}) == 3
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_several_choices_stream_side_by_side(client: OpenAI):
    """Chunks of all choices interleave and each choice ends once."""
    chunks = list(
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, n=2, seed=1, stream=True)
    )
    ends = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ends) == [0, 1]


def test_a_stop_string_ends_the_answer_and_is_not_shown(client: OpenAI):
    """Text up to the stop string comes, the string itself doesn't."""
    full = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=5)
    words = (full.choices[0].message.content or "").split()
    cut = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=5, stop=[words[3]])
    assert cut.choices[0].finish_reason == "stop"
    assert (cut.choices[0].message.content or "").split() == words[:3]


def test_logprobs_come_with_bytes_and_alternatives(client: OpenAI):
    """Each token tells its logprob, its bytes and as many alternatives as were asked for."""
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=4, seed=1, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 4
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert bytes(entry.bytes or []).decode() == entry.token
        assert len(entry.top_logprobs) == 3


def test_completions_answer_a_bare_prompt(client: OpenAI):
    """The older endpoint takes text, token ids and several prompts."""
    answer = client.completions.create(model="tiny", prompt=["one", "two"], max_tokens=3, seed=1, logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.tokens or []) == 3
    tokens = client.completions.create(model="tiny", prompt=[104, 105], max_tokens=3)
    assert tokens.usage is not None
    assert tokens.usage.prompt_tokens == 2
    streamed = client.completions.create(model="tiny", prompt="x", max_tokens=3, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices)


def test_models_are_listed_with_address_and_price(client: OpenAI):
    """A model's id, content address, context and least price are public."""
    models = list(client.models.list())
    assert [model.id for model in models] == ["tiny"]
    extra: Any = client.models.retrieve("tiny").model_extra
    assert extra["providers"] == 2
    assert extra["pricing"]["completion"] == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 200}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "alien", "content": "x"}]}, "messages[0].role"),
        ({"messages": "hello"}, "messages"),
    ],
)
def test_what_is_out_of_range_is_a_400_that_names_the_field(
    client: OpenAI, fields: dict[str, Any], param: str
):
    """The envelope says which parameter, and what to make it."""
    wanted: dict[str, Any] = {"model": "tiny", "messages": HELLO, **fields}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**wanted)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_unknown_fields_are_passed_over(client: OpenAI):
    """Clients may send what this gateway has never heard of."""
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=2, extra_body={"frobnicate": {"deep": [1, 2]}}
    )
    assert answer.choices


def test_unknown_models_are_404_and_name_those_there_are(client: OpenAI):
    """The message lists what may be used."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert "tiny" in str(caught.value)


def test_a_bad_key_is_401(bed: Bed):
    """So is none at all."""
    with (
        OpenAI(base_url=f"{bed.url}/v1", api_key="sk-nope", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    assert bed.fetch("GET", "/v1/clusterai/account")[0] == 401


def test_an_account_without_credit_is_402_insufficient_quota(bed: Bed):
    """A key of an empty account learns what is missing and that nothing was done."""
    secret, _ = bed.ring.create("poor")
    status, _, raw = bed.chat(key=secret)
    assert status == 402
    assert b"insufficient_quota" in raw


def test_prompts_longer_than_the_context_are_400(client: OpenAI):
    """The code is the one that clients know."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 9000}])
    assert caught.value.code == "context_length_exceeded"


def test_schemas_that_the_engine_cannot_follow_are_a_clear_400(client: OpenAI):
    """The provider's own words reach the client."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}},
            },
        )
    assert "schema" in str(caught.value)


def test_messages_that_other_clients_send_back_are_taken(client: OpenAI):
    """An answer's message with empty extras, and content in parts, are as good as plain text."""
    messages: list[Any] = [
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "assistant", "content": "hi", "tool_calls": [], "refusal": None, "audio": None},
        {"role": "user", "content": "and now?", "name": "ann"},
    ]
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=2, extra_body={"tools": []}
    )
    assert answer.choices


def test_embeddings_of_a_chat_model_are_a_clear_400(client: OpenAI):
    """Asking a chat model to embed says so."""
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="tiny", input="x")


def test_a_client_that_leaves_a_stream_pays_only_for_what_was_made(client: OpenAI, bed: Bed):
    """Closing the response cancels the provider's work."""
    for standin in bed.standins:
        standin.manners.pause_s = 0.02
    before = bed.spent()
    with contextlib.closing(
        client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=2000, stream=True, logit_bias={"768": -100}
        )
    ) as stream:
        for _, _chunk in zip(range(5), stream, strict=False):
            pass
    bed.until(lambda: bed.spent() > before, "the partial answer's charge")
    assert bed.spent() - before < 1_000 * 3
    bed.until(lambda: bed.get("/v1/clusterai/account", bed.key)["held_wei"] == 0, "the hold's release")
    for standin in bed.standins:
        standin.manners.pause_s = 0.0
