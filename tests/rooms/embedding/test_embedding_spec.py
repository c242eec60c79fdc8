"""Requests, prices and the fixed point: what everybody must count the same."""

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.messages import Answer
from clusterai.work import KINDS
from clusterai.work.embedding import KIND, Embedding, OutOfRange, packed, vectors
from clusterai.work.embedding.core.judge import judge, quantised
from clusterai.work.embedding.spec import MOST_NUMBERS, MOST_TOKENS

MODEL = bytes(range(32))
texts_of = some.lists(
    some.lists(some.integers(0, 30_000), min_size=1, max_size=200).map(tuple), min_size=1, max_size=60
)


def unit(seed: int, count: int, size: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    rows = np.random.default_rng(seed).normal(size=(count, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def answer_of(seed: int, count: int, size: int) -> tuple[int, ...]:
    return tuple(quantised(unit(seed, count, size)).ravel().tolist())


def test_the_network_knows_embedding_as_a_kind_of_work():
    """It is registered under the name that orders carry."""
    assert KINDS["embedding"] is KIND


@given(texts_of)
def test_requests_hold_all_texts_in_order_within_the_bounds(texts: list[tuple[int, ...]]):
    """Packing loses nothing, and every request survives its own bytes."""
    requests = packed(MODEL, texts, 384)
    assert [text for request in requests for text in request.texts] == texts
    assert all(KIND.decode(request.canonical()) == request for request in requests)


@given(texts_of, some.integers(0, 1000))
def test_an_order_never_costs_more_than_its_cap_and_counts_whole_vectors(
    texts: list[tuple[int, ...]], numbers: int
):
    """Input tokens of the texts whose vectors came, and nothing else, are what is paid."""
    request = packed(MODEL, texts, 8)[0]
    answer = (1,) * min(numbers, 8 * len(request.texts))
    units = KIND.recount(request, answer)
    assert units == (sum(map(len, request.texts[: len(answer) // 8])), 0)
    assert units[0] * 7 <= KIND.cap_wei(request, 7, 1000)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"texts": ()}, "number of texts"),
        ({"texts": ((),)}, "tokens of a text"),
        ({"texts": ((1,) * (MOST_TOKENS + 1),)}, "tokens of a text"),
        ({"texts": ((1,) * 1500, (1,) * 1500)}, "tokens of all texts"),
        ({"texts": ((-1,),)}, "least token"),
        ({"texts": ((1,),) * 17}, "number of texts"),
        ({"size": MOST_NUMBERS + 1}, "size"),
        ({"model": b"short"}, "model address"),
    ],
)
def test_what_is_out_of_range_is_named(changes: dict[str, object], word: str):
    """The error names the field and its bounds; from a stranger's bytes it is Malformed."""
    good = Embedding(MODEL, ((1, 2),), 384)
    with pytest.raises(OutOfRange, match=word):
        msgspec.structs.replace(good, **changes)
    fields = {"model": MODEL, "texts": ((1, 2),), "size": 384} | changes
    raw = msgspec.msgpack.encode(["embedding.1", fields["model"], fields["texts"], fields["size"]])
    with pytest.raises(Malformed, match=word):
        KIND.decode(raw)


@given(some.integers(0, 2**32), some.integers(1, 5))
def test_vectors_survive_the_fixed_point(seed: int, count: int):
    """Each number comes back within half a step, and stands in an Answer as any token does."""
    rows = unit(seed, count, 48)
    answer = tuple(quantised(rows).ravel().tolist())
    request = Embedding(MODEL, ((1,),) * count, 48)
    assert np.abs(np.array(vectors(request, answer)) - rows).max() <= 1.6e-5
    assert canonical.decode(canonical.encode(Answer(answer, "stop")), Answer).tokens == answer


def test_the_largest_order_fits_an_answer_on_chain():
    """Random tokens and vectors, the worst to deflate, still leave room for path, receipt and signatures."""
    import zlib

    dice = random.Random(1)
    texts = tuple(tuple(dice.randrange(30_000) for _ in range(128)) for _ in range(16))
    request = Embedding(MODEL, texts, 384)
    worst = tuple(dice.randrange(1, 65_536) for _ in range(MOST_NUMBERS))
    packed_bytes = zlib.compress(request.canonical() + canonical.encode(Answer(worst, "stop")), 9)
    assert len(packed_bytes) < 24_576 - 2_500


HONEST = answer_of(1, 3, 48)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (HONEST[:-1], "stop"),
        (HONEST[:-48], "stop"),
        ((*HONEST, 32_768), "stop"),
        ((0, *HONEST[1:]), "stop"),
        ((65_536, *HONEST[1:]), "stop"),
        (HONEST, "length"),
    ],
)
def test_what_no_provider_may_send_is_seen_without_an_engine(answer: tuple[int, ...], reason: str):
    """Too few or too many numbers, numbers outside the range, and an end that can't be, are refused before they are paid."""
    assert KIND.wrong is not None
    request = Embedding(MODEL, ((1,), (2,), (3,)), 48)
    assert KIND.wrong(request, HONEST, "stop") is None
    assert KIND.wrong(request, HONEST[:48], "cancelled") is None
    assert KIND.wrong(request, answer, reason) is not None


@given(some.integers(0, 2**32))
def test_arithmetic_noise_speaks_for_honesty_and_an_edit_convicts(seed: int):
    """A vector off by rounding is honest; one number off by more, another text's vector, or a swap are not."""
    rows = unit(seed, 3, 384)
    noise = np.random.default_rng(seed).uniform(-2e-5, 2e-5, rows.shape).astype(np.float32)
    honest = tuple(quantised(rows + noise).ravel().tolist())
    findings, gaps = judge(rows, honest)
    assert findings.weight_milli == -3000
    assert findings.largest_gap_milli >= 0
    assert len(gaps) == len(honest)
    edited = (*honest[:500], min(65_535, honest[500] + 200), *honest[501:])
    swapped = honest[384:768] + honest[:384] + honest[768:]
    for fraud in (edited, swapped, answer_of(seed + 1, 3, 384)):
        assert judge(rows, fraud)[0].weight_milli >= 27_632
