"""Sealed inference with the models that come along: right answers, what the provider can't see, and who is caught."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pytest

from clusterai.models.store import ModelStore
from clusterai.protocol.canonical import Malformed
from clusterai.work import KINDS
from clusterai.work.engine import Busy, EngineFailed, Finish, Stream, TokenEvent, Unfit
from clusterai.work.kind import Findings
from clusterai.work.loading import load_engine
from clusterai.work.packed import bytes_of, tokens_of
from clusterai.work.sealed import KIND, Sealed, decode_sealed
from clusterai.work.sealed.adapters.ckks import Imprecise, Scheme
from clusterai.work.sealed.adapters.ckks_engine import CkksEngine
from clusterai.work.sealed.adapters.requester import NotTheAnswer, Question, questions
from clusterai.work.sealed.core import wire
from clusterai.work.sealed.core.layout import weight_polynomials
from clusterai.work.sealed.core.model import plain_outputs, read_shape, read_weights
from clusterai.work.sealed.core.security import RINGS

CONVICTS = 27_632
CANCER, DIGITS = "sealed-breast-cancer", "sealed-digits"
T = TypeVar("T")


class Bench:
    """A model's engine, its shape and matrix, and inputs to ask about."""

    def __init__(self, store: ModelStore, name: str) -> None:
        self.model = store.get(name)
        self.shape = read_shape(self.model.paths["shape.json"].read_bytes())
        self.matrix = read_weights(self.model.paths["weights.json"].read_bytes(), self.shape)
        self.store = store

    def engine(self) -> CkksEngine:
        found = load_engine(self.store, self.model)
        assert isinstance(found, CkksEngine)
        return found

    def rows(self, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        rng = np.random.default_rng(count)
        x = rng.uniform(0, 1, (count, len(self.shape.features)))
        return np.array(self.shape.centre) + np.array(self.shape.spread) * x

    def asked(self, count: int = 1) -> list[Question]:
        return questions(bytes(self.model.address), self.shape, self.rows(count))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def cancer(store: ModelStore) -> Bench:
    return Bench(store, CANCER)


@pytest.fixture(scope="module")
def digits(store: ModelStore) -> Bench:
    return Bench(store, DIGITS)


def with_engine(bench: Bench, use: Callable[[CkksEngine], Awaitable[T]]) -> T:
    async def run() -> T:
        engine = bench.engine()
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


def evaluated(bench: Bench, request: Sealed) -> bytes:
    return with_engine(bench, lambda engine: engine.evaluate(request))


async def drained(stream: Stream) -> tuple[tuple[int, ...], Finish]:
    tokens: list[int] = []
    async for event in stream:
        if isinstance(event, TokenEvent):
            tokens.append(event.token)
        else:
            return tuple(tokens), event
    raise AssertionError("a stream ends with Finish")


def judged(bench: Bench, request: Sealed, answer: bytes, reason: str = "stop") -> Findings:
    assert KIND.check is not None

    async def check(engine: CkksEngine) -> list[Findings]:
        assert KIND.check is not None
        return await KIND.check(engine, [(request, tokens_of(answer), reason)])

    return with_engine(bench, check)[0]


# --- right answers ---


@pytest.mark.parametrize(("name", "count", "requests"), [(CANCER, 70, 2), (DIGITS, 2, 2)])
def test_decrypted_outputs_are_the_models_own(store: ModelStore, name: str, count: int, requests: int):
    """What a requester decrypts is what the model says in the clear, to five digits, for every input of a request."""
    bench = Bench(store, name)
    asked = bench.asked(count)
    assert len(asked) == requests
    found = np.vstack([it.read(evaluated(bench, it.request)).raw for it in asked])
    assert np.abs(found - plain_outputs(bench.shape, bench.matrix, bench.rows(count))).max() < 1e-4


def test_the_engine_streams_packed_bytes(cancer: Bench):
    """An order's tokens are the evaluation's bytes, and the receipt counts what was computed."""
    request = cancer.asked()[0].request

    async def order(engine: CkksEngine) -> None:
        tokens, finish = await drained(engine.submit(request))
        assert bytes_of(tokens) == await engine.evaluate(request)
        assert finish.reason == "stop"
        assert KIND.recount(request, tokens) == (finish.usage.prompt_tokens, finish.usage.answer_tokens)
        assert KIND.cap_wei(request, 3, 5) == 2 * 3 + 2 * 5
        assert KIND.wrong is not None
        assert KIND.wrong(request, tokens, "stop") is None

    with_engine(cancer, order)


def test_the_kind_is_known_and_its_requests_travel(digits: Bench):
    """A request decodes to itself, and fits an order with room to spare."""
    request = digits.asked()[0].request
    assert KINDS["sealed"] is KIND
    assert decode_sealed(request.canonical()) == request
    assert len(request.canonical()) < 200_000


# --- what is bit-equal ---

OTHER_PROCESS = """
import asyncio, hashlib, sys
from pathlib import Path
from clusterai.models.store import ModelStore
from clusterai.work.loading import load_engine
from clusterai.work.sealed import decode_sealed
store = ModelStore(Path(sys.argv[1]))
engine = load_engine(store, store.get(sys.argv[2]))
request = decode_sealed(sys.stdin.buffer.read())
print(hashlib.sha256(asyncio.run(engine.evaluate(request))).hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_gives_the_same_bytes(digits: Bench, tmp_path: Path, threads: str):
    """A validator's process, with other threads for its arithmetic, makes the provider's very bytes."""
    request = digits.asked()[0].request
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path), DIGITS],
        input=request.canonical(), capture_output=True, check=True, timeout=120,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.decode().strip() == hashlib.sha256(evaluated(digits, request)).hexdigest()


def test_threads_at_once_give_the_same_bytes(cancer: Bench):
    """Evaluations that run side by side don't touch each other."""
    request = cancer.asked()[0].request
    scheme = Scheme(cancer.shape.ring)
    weight = scheme.encoded(np.arange(2_048))

    def once(_: int) -> bytes:
        return scheme.product_sum([scheme.loaded(request.ciphertexts[0])], [weight])

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(once, range(16)))) == 1


# --- what nobody sees ---


def test_the_same_input_never_looks_the_same(cancer: Bench):
    """Two requests for one input share no ciphertext, and another key reads nothing in the answer."""
    first, second = cancer.asked()[0], cancer.asked()[0]
    assert first.request.ciphertexts != second.request.ciphertexts
    answer = evaluated(cancer, first.request)
    right = plain_outputs(cancer.shape, cancer.matrix, cancer.rows(1))
    assert np.abs(first.read(answer).raw - right).max() < 1e-4
    assert np.abs(second.read(answer).raw - right).max() > 1


def test_ciphertexts_look_uniform(cancer: Bench):
    """A ciphertext's residues are spread over the whole modulus, whatever the input."""
    data = np.frombuffer(cancer.asked()[0].request.ciphertexts[0], np.uint8).reshape(-1, 7)
    counts = np.bincount(data[:, :6].ravel(), minlength=256)
    expected = data[:, :6].size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 400


# --- villains ---


def test_an_honest_provider_is_never_accused(cancer: Bench, digits: Bench):
    """Honest answers weigh for honesty, each of them."""
    for bench in (cancer, digits):
        for question in bench.asked(2):
            found = judged(bench, question.request, evaluated(bench, question.request))
            assert found.weight_milli < 0
            assert found.matches == found.tokens
            assert found.largest_gap_milli == 0


def altered(bench: Bench, folder: Path, change: Callable[[dict[str, object]], None]) -> CkksEngine:
    """An engine that serves other weights under the model's address."""
    weights = msgspec.json.decode(bench.model.paths["weights.json"].read_bytes())
    change(weights)
    (folder / "weights.json").write_bytes(msgspec.json.encode(weights))
    other = msgspec.structs.replace(
        bench.model, paths=bench.model.paths | {"weights.json": folder / "weights.json"}
    )
    return CkksEngine(bench.model, weights=other)


def one_weight(weights: dict[str, object]) -> None:
    rows = msgspec.convert(weights["rows"], list[list[int]])
    rows[0][0] += 1
    weights["rows"] = rows


def half_the_layer(weights: dict[str, object]) -> None:
    hidden = msgspec.convert(weights["hidden"], list[list[int]])
    weights["hidden"] = hidden[:16] + [[0] * len(row) for row in hidden[16:]]


@pytest.mark.parametrize("change", [one_weight, half_the_layer])
def test_another_model_is_caught(digits: Bench, tmp_path: Path, change: Callable[[dict[str, object]], None]):
    """A provider whose weights differ in the last bit of one, or that skips half of a layer, is convicted by one answer."""
    request = digits.asked()[0].request
    villain = altered(digits, tmp_path, change)
    answer = asyncio.run(villain.evaluate(request))
    assert judged(digits, request, answer).weight_milli >= CONVICTS


def test_an_old_answer_is_caught(cancer: Bench):
    """The answer to an earlier request, even of the same input, convicts."""
    old, new = cancer.asked()[0].request, cancer.asked()[0].request
    assert judged(cancer, new, evaluated(cancer, old)).weight_milli >= CONVICTS


def test_random_bytes_and_the_question_itself_are_caught(cancer: Bench):
    """A well-formed ciphertext that was made up, one flipped bit, or the request sent back: each convicts."""
    request = cancer.asked()[0].request
    honest = evaluated(cancer, request)
    made_up = cancer.asked()[0].request.ciphertexts[0]
    flipped = bytes([honest[0] ^ 1]) + honest[1:]
    for answer in (made_up, flipped, request.ciphertexts[0]):
        assert judged(cancer, request, answer).weight_milli >= CONVICTS


@pytest.mark.parametrize("reason", ["stop", "length", "cancelled"])
def test_a_cut_answer_is_no_answer(cancer: Bench, reason: str):
    """What is too short isn't paid for, and convicts whoever signs for it."""
    request = cancer.asked()[0].request
    short = evaluated(cancer, request)[:-7]
    assert KIND.recount(request, tokens_of(short)) == (0, 0)
    assert judged(cancer, request, short, reason).weight_milli >= CONVICTS


def test_requests_for_another_shape_are_refused(cancer: Bench, digits: Bench):
    """An engine refuses other models, rings and numbers of ciphertexts; an answer to such a request convicts."""
    request = cancer.asked()[0].request
    one = request.ciphertexts[0]
    others = [
        msgspec.structs.replace(request, model=bytes(32)),
        msgspec.structs.replace(request, answers=2),
        msgspec.structs.replace(request, ciphertexts=(one, one)),
        msgspec.structs.replace(digits.asked()[0].request, model=request.model),
    ]

    async def refuse(engine: CkksEngine) -> None:
        for other in others:
            with pytest.raises(Unfit):
                engine.submit(other)
            with pytest.raises(Unfit):
                await engine.evaluate(other)

    with_engine(cancer, refuse)
    wide = msgspec.structs.replace(request, answers=2)
    assert judged(cancer, wide, one + one).weight_milli >= CONVICTS


def test_hostile_requests_dont_decode(cancer: Bench):
    """Garbage, other lengths, residues beyond the modulus and hollow ciphertexts are refused before any library sees them."""
    request = cancer.asked()[0].request
    raw = request.canonical()
    size = RINGS[2_048].ciphertext_bytes
    at = raw.index(request.ciphertexts[0])
    for bad in (
        b"",
        raw[:-1],
        raw + b"\x00",
        raw[:at] + b"\xff" * size + raw[at + size :],
        raw[:at] + bytes(size) + raw[at + size :],
        bytes(800 * 1024),
    ):
        with pytest.raises(Malformed):
            decode_sealed(bad)


def test_a_made_up_ciphertext_leaves_the_engine_whole(cancer: Bench):
    """Residues that nobody encrypted are evaluated like any others, or refused; the next request is answered."""
    request = cancer.asked()[0].request
    ring = RINGS[2_048]
    lone = bytes(ring.ciphertext_bytes - 7) + b"\x01" + bytes(6)
    crafted = msgspec.structs.replace(request, ciphertexts=(lone,))

    async def go_on(engine: CkksEngine) -> None:
        answer = await engine.evaluate(crafted)
        assert KIND.check is not None
        found = await KIND.check(engine, [(crafted, tokens_of(answer), "stop")])
        assert found[0].weight_milli < 0
        await drained(engine.submit(request))

    with_engine(cancer, go_on)


def hollow(bench: Bench) -> Sealed:
    """A request whose ciphertexts cancel each other in the first group's sum, made by somebody who knows the weights."""
    request, ring = bench.asked()[0].request, bench.shape.ring
    scheme = Scheme(ring)
    polynomials = weight_polynomials(bench.shape.layout(), bench.matrix)[0]
    plain = [scheme.encoded(it) for it in polynomials]
    weights = [[int(it[at]) for at in range(ring.degree)] for it in plain]
    residues = [wire.residues_of(ring, it) for it in request.ciphertexts]
    second = [it[ring.degree :].tolist() for it in residues]
    for at in range(ring.degree):
        rest = sum(w[at] * c[at] for w, c in zip(weights[1:], second[1:], strict=True))
        residues[0][ring.degree + at] = -rest * pow(weights[0][at], -1, ring.prime) % ring.prime
    return msgspec.structs.replace(request, ciphertexts=tuple(wire.bytes_of(ring, it) for it in residues))


def test_a_request_that_cancels_itself_doesnt_break_the_engine(digits: Bench):
    """Crafted ciphertexts whose sum hides nothing get no answer, cost nothing, and the engine goes on; an answer to them convicts."""
    crafted, fair = hollow(digits), digits.asked()[0].request

    async def go_on(engine: CkksEngine) -> None:
        with pytest.raises(Unfit):
            await engine.evaluate(crafted)
        bad, good = engine.submit(crafted), engine.submit(fair)
        tokens, finish = await drained(bad)
        assert (tokens, finish.reason) == ((), "cancelled")
        assert KIND.recount(crafted, tokens) == (0, 0)
        assert (await drained(good))[1].reason == "stop"

    with_engine(digits, go_on)
    assert judged(digits, crafted, evaluated(digits, fair)).weight_milli >= CONVICTS


def test_a_requester_refuses_what_isnt_an_answer(cancer: Bench):
    """An answer of another length isn't decrypted."""
    question = cancer.asked()[0]
    with pytest.raises(NotTheAnswer):
        question.read(b"short")


# --- the engine's edges ---


def test_a_full_queue_says_so(cancer: Bench):
    """Beyond the bound a request is refused at once; who goes away before its turn is told so."""
    request = cancer.asked()[0].request

    async def crowd() -> None:
        engine = CkksEngine(cancer.model, most_waiting=2)
        streams = [engine.submit(request) for _ in range(2)]
        with pytest.raises(Busy):
            engine.submit(request)
        streams[1].cancel()
        assert (await drained(streams[1]))[1].reason == "cancelled"
        assert (await drained(streams[0]))[1].reason == "stop"
        assert engine.stats().queued == 0
        last = engine.submit(request)
        await engine.close()
        with pytest.raises(EngineFailed):
            await drained(last)
        with pytest.raises(EngineFailed):
            engine.submit(request)

    asyncio.run(crowd())


def test_weights_too_large_for_exact_encoding_are_refused():
    """Where rounding could differ between machines, there is no plaintext."""
    scheme = Scheme(RINGS[2_048])
    with pytest.raises(Imprecise):
        scheme.encoded(np.full(2_048, 2**52))
