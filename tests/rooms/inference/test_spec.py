"""Requests: integers, one encoding each, and errors that say what to change."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol.canonical import Malformed
from clusterai.work.inference import (
    Generation,
    OutOfRange,
    Price,
    Sampling,
    Usage,
    cap_wei,
    choice_seed,
    cost_wei,
    decode_generation,
    ppm,
    recount,
)

MODEL = bytes(range(32))


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    bias = draw(st.dictionaries(st.integers(0, 50_000), st.integers(-100_000, 100_000), max_size=5))
    return Sampling(
        temperature_ppm=draw(st.integers(0, 2_000_000)),
        top_p_ppm=draw(st.integers(0, 1_000_000)),
        top_k=draw(st.integers(0, 100)),
        min_p_ppm=draw(st.integers(0, 1_000_000)),
        presence_ppm=draw(st.integers(-2_000_000, 2_000_000)),
        frequency_ppm=draw(st.integers(-2_000_000, 2_000_000)),
        repetition_ppm=draw(st.integers(10_000, 10_000_000)),
        logit_bias=tuple(sorted(bias.items())),
        seed=draw(st.integers(0, 2**64 - 1)),
        schema=draw(st.none() | st.text(min_size=1, max_size=20)),
    )


generations = st.builds(
    Generation,
    model=st.binary(min_size=32, max_size=32),
    prompt=st.lists(st.integers(0, 50_000), min_size=1, max_size=20).map(tuple),
    sampling=samplings(),
    max_tokens=st.integers(10, 1000),
    stop=st.lists(st.text(min_size=1, max_size=8), max_size=4).map(tuple),
    logprobs=st.integers(-1, 20),
    so_far=st.lists(st.integers(0, 50_000), max_size=5).map(tuple),
)


@given(generations)
def test_a_request_survives_its_bytes(generation: Generation) -> None:
    """Canonical bytes decode to the same request, and only one spelling of them is accepted."""
    raw = generation.canonical()
    assert decode_generation(raw) == generation
    padded = raw + b"\xc0"
    with pytest.raises(Malformed):
        decode_generation(padded)


@given(st.binary(max_size=200))
def test_nonsense_is_malformed(raw: bytes) -> None:
    """A stranger's bytes are a request or `Malformed`, never another error."""
    with contextlib.suppress(Malformed):
        assert decode_generation(raw).canonical() == raw


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature_ppm", 2_000_001),
        ("top_p_ppm", -1),
        ("min_p_ppm", 1_000_001),
        ("repetition_ppm", 0),
        ("seed", 2**64),
    ],
)
def test_out_of_range_says_the_range(field: str, value: int) -> None:
    """An impossible setting names itself and the range that is possible."""
    with pytest.raises(OutOfRange, match=f"{field} is .*make it between"):
        msgspec.structs.replace(Sampling(), **{field: value})


@pytest.mark.parametrize("bias", [((5, 1), (5, 2)), ((6, 1), (5, 2)), ((-1, 1),)])
def test_biases_are_sorted_and_once(bias: tuple[tuple[int, int], ...]) -> None:
    """Two spellings of one bias can't both be requests."""
    with pytest.raises(OutOfRange):
        Sampling(logit_bias=bias)


def test_tokens_so_far_leave_room_for_one_more() -> None:
    """A finished answer can't be resumed."""
    with pytest.raises(OutOfRange, match="number of tokens so far"):
        Generation(MODEL, (1,), max_tokens=2, so_far=(1, 2))


def test_floats_never_enter() -> None:
    """A float in the bytes is refused."""
    raw = msgspec.msgpack.encode(["Generation", MODEL, [1], [0.7]])
    with pytest.raises(Malformed):
        decode_generation(raw)


def test_digest_covers_every_field() -> None:
    """A request that differs in anything has another digest."""
    base = Generation(MODEL, (1, 2, 3), max_tokens=8)
    others = [
        msgspec.structs.replace(base, prompt=(1, 2)),
        msgspec.structs.replace(base, so_far=(4,)),
        msgspec.structs.replace(base, stop=("x",)),
        msgspec.structs.replace(base, max_tokens=9),
        msgspec.structs.replace(base, sampling=Sampling(seed=1)),
    ]
    assert len({generation.digest() for generation in [base, *others]}) == 6


@given(st.integers(0, 2**64 - 1))
def test_choices_have_seeds_of_their_own(seed: int) -> None:
    """Choice 0 keeps the request's seed; the others differ from it and from each other."""
    seeds = [choice_seed(seed, choice) for choice in range(8)]
    assert seeds[0] == seed
    assert len(set(seeds)) == 8
    assert all(0 <= one < 2**64 for one in seeds)


def test_ppm_rounds() -> None:
    """JSON's 0.7 is 700,000 and not 699,999."""
    assert [ppm(value) for value in (0.7, 1.0, 0.1 + 0.2, 0.0)] == [700_000, 1_000_000, 300_000, 0]


@given(
    st.integers(1, 50), st.integers(0, 10), st.integers(0, 30), st.integers(0, 10**6), st.integers(0, 10**6)
)
def test_no_answer_costs_more_than_the_cap(
    prompt: int, so_far: int, new: int, inward: int, outward: int
) -> None:
    """What a receipt can ask for never exceeds the order's cap."""
    generation = Generation(MODEL, (1,) * prompt, max_tokens=so_far + 30, so_far=(2,) * so_far)
    price = Price(inward, outward)
    usage = recount(generation, (3,) * new)
    assert cost_wei(usage, price) <= cap_wei(generation, price)
    assert usage == Usage(prompt + so_far, 0, new)
