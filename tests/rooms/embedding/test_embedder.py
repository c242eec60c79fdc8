"""The embedding engine with its real model: what it gives, what it refuses, and who is caught."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

import clusterai.work.embedding.adapters.openvino_engine as engines
from clusterai.models import ModelStore, StoredModel
from clusterai.work.embedding import KIND, Embedding, vectors
from clusterai.work.embedding.adapters.openvino_engine import OpenVinoEmbedder
from clusterai.work.engine import Busy, EngineFailed, Finish, Stream, TokenEvent, Unfit
from clusterai.work.kind import Findings
from clusterai.work.loading import load_engine

pytestmark = pytest.mark.model

CONVICTS = 27_632
T = TypeVar("T")
TEXTS = [
    "A cat sat on the mat.",
    "A kitten rested on the rug.",
    "The central bank raised its interest rate by a quarter of a point on Thursday, as had been expected.",
    "Cats",
    " ".join(["Provers and verifiers are strangers to each other."] * 12),
]


class Room:
    """One loop, the model, and an engine that the tests share."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        store = ModelStore(folder)
        self.model: StoredModel = store.get("all-minilm-l6-v2")
        self.engine: OpenVinoEmbedder = load_engine(store, self.model)
        tokenizer = Tokenizer.from_file(str(self.model.paths["tokenizer.json"]))
        tokenizer.no_padding()
        texts = tuple(tuple(tokenizer.encode(text).ids) for text in TEXTS)
        self.request = Embedding(self.engine.model, texts, self.engine.size)
        self.honest = self.run(lambda: collect(self.engine.submit(self.request)))[0]

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def main() -> T:
            return await work()

        return self.runner.run(main())

    def judged(self, answer: tuple[int, ...], request: Embedding | None = None, by: str = "stop") -> Findings:
        assert KIND.check is not None
        check, asked = KIND.check, request or self.request
        return self.run(lambda: check(self.engine, [(asked, answer, by)]))[0]

    def by(self, other: OpenVinoEmbedder) -> tuple[int, ...]:
        request = msgspec.structs.replace(self.request, model=other.model)
        return self.run(lambda: collect(other.submit(request)))[0]


async def collect(stream: Stream) -> tuple[tuple[int, ...], Finish]:
    events = [event async for event in stream]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return tuple(event.token for event in events[:-1] if isinstance(event, TokenEvent)), finish


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    it = Room(tmp_path_factory.mktemp("models"))
    yield it
    it.run(it.engine.close)
    it.runner.close()


def test_near_texts_have_near_vectors(room: Room):
    """Two sentences about a cat on a mat are nearer to each other than either is to a bank's rate."""
    cat, kitten, bank, *_ = np.array(vectors(room.request, room.honest))
    assert cat @ kitten > 0.5 > 0.2 > max(cat @ bank, kitten @ bank)
    assert abs(np.linalg.norm(cat) - 1) < 1e-4


def test_honest_work_is_not_accused_whatever_the_threads_and_batches(room: Room):
    """One thread or four, alone, in a crowd or in another order: every number comes out the same."""
    assert room.judged(room.honest).weight_milli < 0
    assert room.judged(room.by(OpenVinoEmbedder(room.model, threads=4))).weight_milli < 0

    async def alone() -> tuple[int, ...]:
        parts = [msgspec.structs.replace(room.request, texts=(text,)) for text in room.request.texts]
        answers = [(await collect(room.engine.submit(part)))[0] for part in parts]
        return tuple(token for answer in answers for token in answer)

    async def crowd() -> list[tuple[tuple[int, ...], Finish]]:
        return list(await asyncio.gather(*(collect(room.engine.submit(room.request)) for _ in range(7))))

    for answer in (room.run(alone), *(answer for answer, _ in room.run(crowd))):
        findings = room.judged(answer)
        assert findings.weight_milli == -1000 * len(TEXTS)
        assert findings.matches == findings.tokens == len(answer)


def bfloat16(row: NDArray[np.float32]) -> NDArray[np.float32]:
    return ((row.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


def eight_bits(row: NDArray[np.float32]) -> NDArray[np.float32]:
    step = np.abs(row).max(axis=1, keepdims=True) / 127 + 1e-12
    return (np.rint(row / step) * step).astype(np.float32)


@pytest.mark.parametrize(("alter", "least"), [(bfloat16, 3_000), (eight_bits, CONVICTS)])
def test_cheaper_weights_are_caught(
    room: Room,
    alter: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    least: int,
    monkeypatch: pytest.MonkeyPatch,
):
    """Eight-bit weights convict by one answer; bfloat16 ones speak against their owner with every vector."""
    read = engines.read_safetensors

    def altered(path: Path) -> dict[str, NDArray[np.float32]]:
        return {name: alter(it) if it.ndim == 2 else it for name, it in read(path).items()}

    monkeypatch.setattr(engines, "read_safetensors", altered)
    assert room.judged(room.by(OpenVinoEmbedder(room.model))).weight_milli >= least


def test_villains_are_convicted_by_one_answer(room: Room):
    """An edited number, a skipped text, one text's vector for all, a zero vector, a request of another model."""
    size, honest = room.engine.size, room.honest
    edited = (*honest[:700], honest[700] + 250, *honest[701:])
    one_for_all = honest[:size] * len(TEXTS)
    zeros = (*honest[:size], *(32_768,) * (len(honest) - size))
    for answer in (edited, one_for_all, zeros, honest[:-size], honest[:-1]):
        assert room.judged(answer).weight_milli >= CONVICTS
    foreign = msgspec.structs.replace(room.request, model=bytes(32))
    assert room.judged(honest, foreign).weight_milli >= CONVICTS
    assert room.judged(honest, by="length").weight_milli >= CONVICTS


def test_a_cancelled_answer_is_judged_by_what_came(room: Room):
    """Whole vectors that came before the client left are honest work; half a vector is nobody's."""
    size = room.engine.size
    assert room.judged(room.honest[: 2 * size], by="cancelled").weight_milli == -2000
    assert room.judged((), by="cancelled").weight_milli == 0
    assert room.judged(room.honest[: size + 3], by="cancelled").weight_milli >= CONVICTS


def test_what_the_model_cannot_read_is_refused_with_the_cure(room: Room):
    """Another model, another size, a text beyond the context, tokens that it hasn't got."""
    change = msgspec.structs.replace
    for request, word in (
        (change(room.request, model=bytes(32)), "another provider"),
        (change(room.request, size=200), "384 numbers"),
        (change(room.request, texts=((1,) * 300,)), "shorten or split"),
        (change(room.request, texts=((900_000,),)), "0 to 30521"),
    ):
        with pytest.raises(Unfit, match=word):
            room.engine.submit(request)


def test_a_full_engine_says_so_and_a_closed_one_fails_what_waits(room: Room):
    """Too many waiting texts are refused at once; those that wait when it closes go on elsewhere."""

    async def test() -> None:
        engine = OpenVinoEmbedder(room.model, most_waiting=10)
        streams = [engine.submit(room.request), engine.submit(room.request)]
        with pytest.raises(Busy):
            engine.submit(room.request)
        assert engine.stats().queued == 2
        streams[1].cancel()
        assert (await collect(streams[1]))[1].reason == "cancelled"
        await engine.close()
        with pytest.raises(EngineFailed):
            await collect(streams[0])
        with pytest.raises(EngineFailed):
            engine.submit(room.request)

    room.run(test)
