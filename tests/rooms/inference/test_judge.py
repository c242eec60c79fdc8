"""What the check says of honest and dishonest answers, on the tiny model."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.audit.core.sequential import FLOOR_MILLI, add, convinced
from clusterai.work import KINDS
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.adapters.tiny import TinyEngine
from clusterai.work.inference.core import tiny
from clusterai.work.inference.core.ending import why_ended
from clusterai.work.kind import Findings

MODEL = bytes(range(32))
HONEST = tiny.TinyModel(MODEL)
WORDS = tiny.vocabulary()


def request(seed: int = 0, text: str = "be brief", **changes: object) -> Generation:
    base = Generation(MODEL, tiny.encode(text), Sampling(seed=seed), max_tokens=60)
    return msgspec.structs.replace(base, **changes)


def check(*answers: tuple[Generation, tuple[int, ...], str]) -> list[Findings]:
    async def main() -> list[Findings]:
        check = KINDS["inference"].check
        assert check is not None
        engine = TinyEngine(MODEL)
        found = await check(engine, answers)
        await engine.close()
        return found

    return asyncio.run(main())


@given(st.integers(0, 2**64 - 1), st.integers(0, 2_000_000), st.sampled_from([0, 40]), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_honest_answers_match_to_the_token(seed: int, temperature: int, top_k: int, before: int) -> None:
    """Under any sampling, whole or resumed, every token of an honest answer is drawn again."""
    whole = request(sampling=Sampling(seed=seed, temperature_ppm=temperature, top_k=top_k))
    tokens, _ = tiny.answer(HONEST, whole)
    rest = msgspec.structs.replace(whole, so_far=tokens[: min(before, len(tokens) - 1)])
    resumed, reason = tiny.answer(HONEST, rest)
    assert rest.so_far + resumed == tokens
    (found,) = check((rest, resumed, reason))
    assert found.matches == found.tokens == len(resumed)
    assert found.largest_gap_milli == 0
    assert found.weight_milli < 0


def villains() -> dict[str, tuple[Generation, tuple[int, ...], str]]:
    """One dishonest answer each, of those that a single receipt shows."""
    asked = request(seed=5, text="You are a poet.\nWrite.")
    tokens, reason = tiny.answer(HONEST, asked)
    altered = tiny.TinyModel(MODEL, altered=1.0)
    other_seed = msgspec.structs.replace(asked, sampling=Sampling(seed=6))
    skipped = msgspec.structs.replace(asked, prompt=tiny.encode("Write."))
    other = tiny.TinyModel(bytes(32))
    return {
        "SwapsWeights": (asked, *tiny.answer(altered, asked)),
        "OtherModel": (asked, *tiny.answer(other, asked)),
        "OtherSeed": (asked, *tiny.answer(HONEST, other_seed)),
        "SkipsPrompt": (asked, *tiny.answer(HONEST, skipped)),
        "EditsTokens": (asked, (*tokens[:4], 300, 301, 302, *tokens[7:]), reason),
        "CutsAnswer": (asked, tokens[:-3], "stop"),
        "CallsItFull": (asked, tokens[:-3], "length"),
        "RunsOn": (asked, (*tokens, *tokens[:5]), reason),
        "InventsTokens": (asked, (*tokens[:3], tiny.SIZE + 5, *tokens[3:-1]), reason),
        "ForeignModel": (msgspec.structs.replace(asked, model=bytes(32)), tokens, reason),
    }


@pytest.mark.parametrize("name", villains())
def test_villains_are_convicted_by_one_answer(name: str) -> None:
    """Each fraud on 60 tokens outweighs even a long honest past."""
    (found,) = check(villains()[name])
    assert convinced(add(FLOOR_MILLI, found.weight_milli))


def test_a_cancelled_answer_is_honest() -> None:
    """What the client cut short is judged by the tokens that there are."""
    asked = request(seed=3)
    tokens, _ = tiny.answer(HONEST, asked)
    (found, none) = check((asked, tokens[:7], "cancelled"), (asked, (), "cancelled"))
    assert (found.tokens, found.matches) == (7, 7)
    assert none == Findings(0, 0, 0, 0)


def test_honesty_is_never_convicted_and_small_noise_is_borne() -> None:
    """Thousands of honest tokens sink to the floor; arithmetic off by 0.02 stays far from conviction."""
    asked = [request(seed=seed) for seed in range(30)]
    nearly = tiny.TinyModel(MODEL, altered=0.02)
    state = 0
    for found in check(*((one, *tiny.answer(nearly, one)) for one in asked)):
        state = add(state, found.weight_milli)
        assert state <= 0
    assert state == FLOOR_MILLI


def test_why_answers_end() -> None:
    """End token, stop string, full, still open, or past its end."""
    asked = request(stop=(" ba",), max_tokens=4)
    ba = next(token for token, piece in enumerate(WORDS.pieces) if piece == b" ba")
    assert why_ended(asked, (ba,), WORDS, 100) == "stop"
    assert why_ended(asked, (400, tiny.END), WORDS, 100) == "stop"
    assert why_ended(asked, (400,) * 4, WORDS, 100) == "length"
    assert why_ended(asked, (400,), WORDS, len(asked.prompt) + 1) == "length"
    assert why_ended(asked, (400,) * 3, WORDS, 100) == "cancelled"
    assert why_ended(asked, (ba, 400), WORDS, 100) is None


def test_a_stop_string_is_found_across_so_far() -> None:
    """A stop string that began before a failover ends the answer after it."""
    asked = request(stop=("xy",), so_far=(ord("x"),))
    assert why_ended(asked, (ord("y"),), WORDS, 100) == "stop"


def test_many_audits_at_once_are_as_each_alone() -> None:
    """However many answers are checked together, long and short and forged, each gets its own findings, in order."""
    asked = [request(seed=seed, max_tokens=1 + 97 * seed % 400) for seed in range(24)]
    answers: list[tuple[Generation, tuple[int, ...], str]] = [
        (one, *tiny.answer(HONEST, one)) for one in asked
    ]
    answers[5] = villains()["EditsTokens"]
    answers[9] = villains()["InventsTokens"]
    together = check(*answers)
    assert together == [check(answer)[0] for answer in answers]
