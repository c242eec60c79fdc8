"""SmolLM2 itself: chats, villains and JSON schemas."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from clusterai.audit.core.sequential import FLOOR_MILLI, add, convinced
from clusterai.models import ChatTemplate, ModelStore
from clusterai.models.alter import alter_weights
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.adapters.load import load_engine
from clusterai.work.inference.adapters.openvino_engine import OpenVinoEngine
from clusterai.work.inference.check import judge_answer
from clusterai.work.inference.engine import Finish, TokenEvent, Unfit

pytestmark = pytest.mark.model

Go = Callable[[Awaitable[None]], None]

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
            "likes": {"type": "array", "items": {"enum": ["tea", "rain", "chess"]}, "maxItems": 2},
        },
        "required": ["name", "age", "likes"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def go() -> Iterator[Go]:
    with asyncio.Runner() as runner:

        def run(test: Awaitable[None]) -> None:
            async def main() -> None:
                await test

            runner.run(main())

        yield run


@pytest.fixture(scope="module")
def engine(store: ModelStore, go: Go) -> Iterator[OpenVinoEngine]:
    engine = load_engine(store, store.get("smollm2-135m"), slots=8, cache_bytes=96 << 20)
    yield engine
    go(engine.close())


def chat(store: ModelStore, text: str, system: str | None = None, **changes: object) -> Generation:
    model = store.get("smollm2-135m")
    tokenizer = model.tokenizer()
    turns = [{"role": "system", "content": system}] if system else []
    rendered = ChatTemplate(model.card.template, tokenizer.guarded).render(
        [*turns, {"role": "user", "content": text}]
    )
    base = Generation(model.address, tokenizer.encode(rendered), Sampling(seed=7), max_tokens=64)
    return msgspec.structs.replace(base, **changes)


async def answer(engine: OpenVinoEngine, generation: Generation) -> tuple[tuple[int, ...], str]:
    events = [event async for event in engine.submit(generation)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return tuple(event.token for event in events if isinstance(event, TokenEvent)), finish.reason


def test_it_answers(store: ModelStore, engine: OpenVinoEngine, go: Go) -> None:
    """Asked greedily for the capital of France, the model says Paris."""

    async def test() -> None:
        asked = chat(store, "What is the capital of France?", sampling=Sampling(temperature_ppm=0))
        tokens, reason = await answer(engine, asked)
        assert "Paris" in engine.words.text(tokens)
        assert reason == "stop"

    go(test())


def test_villains_against_the_real_model(
    store: ModelStore, engine: OpenVinoEngine, go: Go, tmp_path: Path
) -> None:
    """Weights quantized once more are convicted within 300 tokens, from the floor; honest answers have no gap at all."""

    async def test() -> None:
        model = store.get("smollm2-135m")
        alter_weights(model.weights, tmp_path / "other.gguf", "q4_0")
        other = store.add_gguf(tmp_path / "other.gguf")
        cheat = load_engine(store, model, weights=other, slots=8, cache_bytes=96 << 20)
        asked = [chat(store, f"Tell me a story about {it}.") for it in ("rain", "a king", "bread")]
        asked = [msgspec.structs.replace(one, sampling=Sampling(seed=at)) for at, one in enumerate(asked)]
        state, count = FLOOR_MILLI, 0
        for one, (tokens, reason) in zip(
            asked, await asyncio.gather(*(answer(cheat, one) for one in asked)), strict=True
        ):
            found, _ = await judge_answer(engine, one, tokens, reason)
            state, count = add(state, found.weight_milli), count + found.tokens
        await cheat.close()
        assert convinced(state)
        assert count <= 300
        for one, (tokens, reason) in zip(
            asked, await asyncio.gather(*(answer(engine, one) for one in asked)), strict=True
        ):
            found, gaps = await judge_answer(engine, one, tokens, reason)
            assert found.matches == found.tokens == len(tokens)
            assert max(gaps) == 0
            edited = (*tokens[:20], 500, 501, 502, *tokens[23:])
            found, _ = await judge_answer(engine, one, edited, reason)
            assert convinced(found.weight_milli)

    go(test())


def test_a_skipped_system_prompt_shows(store: ModelStore, engine: OpenVinoEngine, go: Go) -> None:
    """Leaving out the system prompt to save its prefill is convicted by one answer."""

    async def test() -> None:
        asked = chat(store, "What do you like?", system="You are a pirate and speak of nothing but the sea.")
        shorter = chat(store, "What do you like?")
        tokens, reason = await answer(engine, shorter)
        found, _ = await judge_answer(engine, asked, tokens, reason)
        assert convinced(found.weight_milli)

    go(test())


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature_ppm=0), Sampling(seed=3), Sampling(seed=4, top_k=5)]
)
def test_schemas_are_followed_and_checked(
    store: ModelStore, engine: OpenVinoEngine, go: Go, sampling: Sampling
) -> None:
    """With a schema the answer is such JSON under any sampling, and the audit draws it again under the same masks."""

    async def test() -> None:
        schemed = msgspec.structs.replace(sampling, schema=PERSON)
        asked = chat(store, "Invent a person, as JSON.", sampling=schemed)
        tokens, reason = await answer(engine, asked)
        person = json.loads(engine.words.text(tokens))
        assert set(person) == {"name", "age", "likes"}
        assert reason == "stop"
        found, _ = await judge_answer(engine, asked, tokens, reason)
        assert found.matches == found.tokens
        broken = (*tokens[:-2], 500, tokens[-1])
        found, _ = await judge_answer(engine, asked, broken, reason)
        assert convinced(found.weight_milli)
        resumed = msgspec.structs.replace(asked, so_far=tokens[:6])
        assert (await answer(engine, resumed))[0] == tokens[6:]

    go(test())


@pytest.mark.parametrize(
    "schema",
    ["[]", "{", '{"type": "foo"}', '{"$ref": "http://x/y"}', '{"type": "string", "pattern": "(?=a)"}'],
)
def test_bad_schemas_are_unfit(store: ModelStore, engine: OpenVinoEngine, schema: str) -> None:
    """A schema that can't be followed is refused before any work."""
    with pytest.raises(Unfit, match="schema"):
        engine.submit(chat(store, "x", sampling=Sampling(schema=schema)))
