"""One suite for every engine behind the port: the tiny one, and OpenVINO with the real model."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import numpy as np
import pytest

from clusterai.models import ModelStore
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.adapters.tiny import TinyEngine
from clusterai.work.inference.check import check, judge_answer
from clusterai.work.inference.core import tiny
from clusterai.work.inference.core.blocks import BLOCK
from clusterai.work.inference.core.sampler import draw
from clusterai.work.inference.engine import Busy, Engine, EngineFailed, Finish, Stream, TokenEvent, Unfit

MODEL = bytes(range(32))
Run = Callable[[Callable[[Engine], Awaitable[None]]], None]
"""Runs a test's coroutine with the engine that all tests of the module share."""


def openvino(store: ModelStore, cache_bytes: int = 64 << 20) -> Engine:
    from clusterai.work.inference.adapters.load import load_engine

    return load_engine(store, store.get("smollm2-135m"), slots=6, queue=4, cache_bytes=cache_bytes)


@pytest.fixture(scope="module", params=["tiny", pytest.param("openvino", marks=pytest.mark.model)])
def run(request: pytest.FixtureRequest, store: ModelStore) -> Iterator[Run]:
    with asyncio.Runner() as runner:
        engine = openvino(store) if request.param == "openvino" else TinyEngine(MODEL, slots=6, queue=4)

        def go(test: Callable[[Engine], Awaitable[None]]) -> None:
            async def main() -> None:
                await test(engine)

            runner.run(main())

        yield go
        runner.run(_close(engine))


async def _close(engine: Engine) -> None:
    """Streams of a closed engine raise, so that the answer goes on elsewhere; later ones are refused."""
    stream = engine.submit(request_for(engine, 1, max_tokens=2000, sampling=Sampling(logit_bias=BIAS)))
    await anext(aiter(stream))
    await engine.close()
    with pytest.raises(EngineFailed):
        await collect(stream)
    with pytest.raises(EngineFailed):
        engine.submit(request_for(engine, 1))


def request_for(engine: Engine, seed: int = 1, size: int = 20, **changes: object) -> Generation:
    """A prompt of arbitrary tokens, which any model answers with something."""
    tokens = tuple(260 + (seed * 7919 + at * 104_729) % 500 for at in range(size))
    base = Generation(engine.model, tokens, Sampling(seed=seed), max_tokens=24)
    return msgspec.structs.replace(base, **changes)


async def collect(stream: Stream) -> tuple[tuple[int, ...], Finish]:
    events = [event async for event in stream]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return tuple(event.token for event in events[:-1] if isinstance(event, TokenEvent)), finish


def test_an_answer_depends_on_nothing_but_the_request(run: Run) -> None:
    """Alone, in a crowd, and resumed from any point, a request gives the same tokens; usage adds up."""

    async def test(engine: Engine) -> None:
        requests = [request_for(engine, seed, size=3 + 17 * seed) for seed in range(8)]
        alone = [await collect(engine.submit(request)) for request in requests]
        crowd = await asyncio.gather(*(collect(engine.submit(request)) for request in requests))
        assert [tokens for tokens, _ in crowd] == [tokens for tokens, _ in alone]
        for request, (tokens, finish) in zip(requests, alone, strict=True):
            assert finish.usage.prompt_tokens == len(request.prompt)
            assert finish.usage.answer_tokens == len(tokens) <= 24
            at = len(tokens) // 2
            rest, end = await collect(engine.submit(msgspec.structs.replace(request, so_far=tokens[:at])))
            assert tokens[:at] + rest == tokens
            assert end.reason == finish.reason
            assert end.usage.prompt_tokens == len(request.prompt) + at

    run(test)


def test_score_gives_the_logits_that_were_drawn_from(run: Run) -> None:
    """One prefill of an answer gives, row by row, logits from which the same noise draws the same tokens."""

    async def test(engine: Engine) -> None:
        request = request_for(engine, 3, size=50)
        tokens, finish = await collect(engine.submit(request))
        rows = np.concatenate([chunk.copy() async for chunk in engine.score(request.prompt, tokens, 5)])
        assert rows.shape == (len(tokens) - 5, engine.vocabulary)
        assert [draw(row, request.sampling, 5 + at).token for at, row in enumerate(rows)] == list(tokens[5:])
        (found,) = await check(engine, [(request, tokens, finish.reason)])
        assert found.matches == len(tokens)

    run(test)


def test_a_cancelled_stream_ends_with_what_was_used(run: Run) -> None:
    """Cancelling ends the stream soon, and the engine is empty again."""

    async def test(engine: Engine) -> None:
        free = engine.stats().blocks_free
        stream = engine.submit(request_for(engine, 2, max_tokens=2000, sampling=Sampling(logit_bias=BIAS)))
        count = 0
        finish: Finish | None = None
        async for event in stream:
            if isinstance(event, Finish):
                finish = event
            else:
                count += 1
                if count == 3:
                    stream.cancel()
        assert finish is not None
        assert finish.reason == "cancelled"
        assert finish.usage.answer_tokens == count < 2000
        await collect(engine.submit(request_for(engine, 4)))
        await asyncio.sleep(0)
        assert engine.stats().blocks_free == free

    run(test)


BIAS = ((0, -100_000), (2, -100_000), (tiny.END, -100_000))
"""Ends are as good as forbidden, in either model."""


def test_a_full_queue_says_when_to_come_back(run: Run) -> None:
    """More requests than slots and queue are refused with a time, and those taken all end."""

    async def test(engine: Engine) -> None:
        streams = [engine.submit(request_for(engine, seed)) for seed in range(10)]
        with pytest.raises(Busy) as refused:
            engine.submit(request_for(engine, 9))
        assert 0 < refused.value.retry_after_s <= 30
        assert len(await asyncio.gather(*map(collect, streams))) == 10
        await collect(engine.submit(request_for(engine, 9)))

    run(test)


def test_what_can_never_work_is_unfit(run: Run) -> None:
    """Another model, a prompt beyond the context: the message says what to change."""

    async def test(engine: Engine) -> None:
        fits = request_for(engine, 1)
        for unfit, message in (
            (msgspec.structs.replace(fits, model=bytes(32)), "another model"),
            (msgspec.structs.replace(fits, prompt=(1,) * engine.context), "shorten the prompt"),
        ):
            with pytest.raises(Unfit, match=message):
                engine.submit(unfit)

    run(test)


def test_logprobs_and_stop_strings(run: Run) -> None:
    """Alternatives come with each token when asked for; a stop string ends the answer on its last token."""

    async def test(engine: Engine) -> None:
        request = request_for(engine, 1, logprobs=3)
        events = [event async for event in engine.submit(request)]
        drawn = [event for event in events if isinstance(event, TokenEvent)]
        assert all(event.logprob is not None and event.logprob <= 0 for event in drawn)
        assert all(len(event.top) == 3 and event.top[0][1] >= event.top[2][1] for event in drawn)
        text = engine.words.text(event.token for event in drawn)
        stopped = msgspec.structs.replace(request, stop=(text[8:11],))
        tokens, finish = await collect(engine.submit(stopped))
        assert finish.reason == "stop"
        assert text[8:11] in engine.words.text(tokens)
        assert text[8:11] not in engine.words.text(tokens[:-1])
        found, _ = await judge_answer(engine, stopped, tokens, "stop")
        assert found.matches == found.tokens

    run(test)


@pytest.mark.model
def test_little_room_changes_no_token(store: ModelStore) -> None:
    """With a cache so small that answers are preempted and computed again, tokens stay the same."""

    async def main() -> None:
        narrow = openvino(store, cache_bytes=8 * 737_280)
        requests = [request_for(narrow, seed, size=60, max_tokens=40) for seed in range(4)]
        alone = [await collect(narrow.submit(request)) for request in requests]
        crowd = await asyncio.gather(*(collect(narrow.submit(request)) for request in requests))
        assert narrow.stats().blocks_total == 8
        assert sum(len(tokens) for tokens, _ in crowd) + 240 > 8 * BLOCK, (
            "the cache has no room for all of them"
        )
        assert [tokens for tokens, _ in crowd] == [tokens for tokens, _ in alone]
        with pytest.raises(Unfit, match="lower max_tokens"):
            narrow.submit(request_for(narrow, 1, max_tokens=500))
        await narrow.close()

    asyncio.run(main())


@pytest.mark.model
def test_a_copied_beginning_changes_no_bit(store: ModelStore) -> None:
    """A prompt that begins like another one within a block computes less, and its logits are the same to the last bit."""

    async def main() -> None:
        seen, fresh = openvino(store), openvino(store)
        first = request_for(seen, 1, size=70)
        second = msgspec.structs.replace(first, prompt=(*first.prompt[:53], *range(700, 720)))
        await collect(seen.submit(first))
        tokens, finish = await collect(seen.submit(second))
        assert finish.usage.cached_tokens == 53
        again, finish = await collect(fresh.submit(second))
        assert finish.usage.cached_tokens == 0
        assert again == tokens
        ours, theirs = [
            np.concatenate([chunk.copy() async for chunk in engine.score(second.prompt, tokens)])
            for engine in (seen, fresh)
        ]
        assert np.array_equal(ours, theirs)
        await seen.close()
        await fresh.close()

    asyncio.run(main())
