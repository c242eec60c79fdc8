"""Measure the constants of the audit's sequential test for a model, and write its card.

Honest answers are made under every setting that an honest provider may run (batch sizes 1 to 32, one and two threads, f32 and
bf16, short and long prompts) and dishonest ones with the model's own weights quantized once more, the mildest
fraud that pays. All are judged by the reference setting (f32, one thread).

    python scripts/calibrate.py smollm2-135m --tokens 100000 --out src/clusterai/models/cards/smollm2-135m.json

An honest share is an upper bound: of all settings the worst, plus 3 tokens (95 % for none seen) and 3 standard deviations. Where counting ends, the
tail is drawn out: errors of arithmetic are sums of many small ones, so their tails fall ever faster; we let it fall half as
fast as between the last two edges that were counted, and never below `LEAST_PPB`. A fraud share is that of the kind of sampling
in which the fraud shows least. Of edits, half are tokens put in at random, half are spread evenly over all gaps.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from clusterai.models import Calibration, ChatTemplate, ModelStore, StoredModel
from clusterai.models.adapters.openvino_convert import openvino_folder
from clusterai.models.alter import alter_weights
from clusterai.models.core.card import write_card
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.adapters.openvino_engine import OpenVinoEngine
from clusterai.work.inference.check import judge_answer
from clusterai.work.inference.core.weight import weights
from clusterai.work.inference.engine import TokenEvent

EDGES_E4 = (0, 200, 1_000, 3_000, 6_000, 10_000, 20_000, 40_000, 80_000)

COUNTED = 10
"""Tokens beyond an edge from which on its share is taken as counted."""

COUNTED_LEAST = 1
"""A slope between edges up to this one is that of rounding to nothing, not of a tail."""

LEAST_PPB = 3
"""Least share that is ever called honest: so one odd token never convicts anybody, whatever made it (a flipped bit, say)."""

SAMPLINGS = (
    Sampling(),
    Sampling(temperature_ppm=700_000, top_p_ppm=900_000),
    Sampling(temperature_ppm=0),
    Sampling(top_k=40, repetition_ppm=1_100_000),
    Sampling(temperature_ppm=1_300_000, min_p_ppm=50_000, frequency_ppm=300_000),
)

TOPICS = (
    "Tell me a story about a dog that learned to sail.",
    "Why is the sky blue, and why are sunsets red?",
    "Write a poem about rivers and mountains.",
    "Explain photosynthesis to a child.",
    "What is 17 times 23? Think step by step.",
    "Write a Python function that sorts a list of words by length.",
    "Give me a recipe for pancakes with blueberries.",
    "Summarize the history of Rome in ten sentences.",
)

HONEST: dict[str, tuple[dict[str, int | str], float]] = {
    "f32, one thread": ({}, 0.1),
    "f32, two threads": ({"threads": 2}, 0.45),
    "bf16": ({"precision": "bf16"}, 0.45),
}
"""Settings, and their part of the tokens: the first is the auditor's own, where nothing differs."""
WAVES = (1, 4, 16, 32)


def requests(model: StoredModel) -> Iterator[Generation]:
    """Chats without end: topics and kinds of sampling in turn; every eighth prompt is long."""
    tokenizer = model.tokenizer()
    template = ChatTemplate(model.card.template, tokenizer.guarded)
    number = 0
    while True:
        padding = "Notes: " + " ".join(TOPICS) * (1 + number % 7) if number % 8 == 7 else ""
        topic = f"{TOPICS[number % len(TOPICS)]} (variant {number}) {padding}"
        prompt = tokenizer.encode(template.render([{"role": "user", "content": topic}]))
        sampling = msgspec.structs.replace(SAMPLINGS[number % len(SAMPLINGS)], seed=number + 1)
        yield Generation(model.address, prompt, sampling, max_tokens=128)
        number += 1


async def answer(engine: OpenVinoEngine, generation: Generation) -> tuple[tuple[int, ...], str]:
    tokens: list[int] = []
    reason = ""
    async for event in engine.submit(generation):
        if isinstance(event, TokenEvent):
            tokens.append(event.token)
        else:
            reason = event.reason
    return tuple(tokens), reason


async def gaps(
    provider: OpenVinoEngine, auditor: OpenVinoEngine, source: Iterator[Generation], tokens: int
) -> list[list[float]]:
    """Gaps by kind of sampling, of at least `tokens` tokens in all."""
    found: list[list[float]] = [[] for _ in SAMPLINGS]
    number = 0
    while sum(map(len, found)) < tokens:
        wave = list(islice(source, WAVES[number % len(WAVES)]))
        number += 1
        answers = await asyncio.gather(*(answer(provider, generation) for generation in wave))
        for generation, (made, reason) in zip(wave, answers, strict=True):
            _, off = await judge_answer(auditor, generation, made, reason)
            found[(generation.sampling.seed - 1) % len(SAMPLINGS)] += off
    return found


async def edits(
    auditor: OpenVinoEngine, provider: OpenVinoEngine, source: Iterator[Generation], count: int
) -> list[float]:
    """Gaps of tokens put in at random, one at the end of an honest beginning."""
    random = Random(1)
    found: list[float] = []
    while len(found) < count:
        wave = [msgspec.structs.replace(one, max_tokens=12) for one in islice(source, WAVES[-1])]
        answers = await asyncio.gather(*(answer(provider, one) for one in wave))
        for generation, (made, _) in zip(wave, answers, strict=True):
            forged = (*made[: random.randrange(len(made))], random.randrange(100, auditor.vocabulary))
            _, off = await judge_answer(auditor, generation, forged, "cancelled")
            found.append(off[-1])
    return found


def _counted(off: list[float]) -> int:
    """The last edge with enough tokens beyond it; -1 where not even the first has."""
    values = np.array(off)
    counts = [int(np.count_nonzero(values > edge / 10_000)) for edge in EDGES_E4]
    return max((at for at, count in enumerate(counts) if count >= COUNTED), default=-1)


def tails(off: list[float]) -> list[float]:
    """Upper bound on the share above each edge, from 1 (all) down."""
    values = np.array(off)
    above = [int(np.count_nonzero(values > edge / 10_000)) for edge in EDGES_E4]
    bounds = [1.0] + [min(1.0, (count + 3 + 3 * math.sqrt(count)) / len(off)) for count in above]
    last = _counted(off)
    if last <= COUNTED_LEAST:
        return bounds
    fall = math.log(bounds[last] / bounds[last + 1]) / (EDGES_E4[last] - EDGES_E4[last - 1])
    for at in range(last + 1, len(EDGES_E4)):
        drawn_out = bounds[last + 1] * math.exp(-fall / 2 * (EDGES_E4[at] - EDGES_E4[last]))
        bounds[at + 1] = min(bounds[at + 1], drawn_out)
    return bounds


def shares(off: list[float]) -> list[float]:
    """Share in each bin, with one token added to each so that none is impossible."""
    bins = np.bincount(np.searchsorted(np.array(EDGES_E4) / 10_000, off), minlength=len(EDGES_E4) + 1)
    return [(int(count) + 1) / (len(off) + len(bins)) for count in bins]


def calibration(
    honest: dict[str, list[list[float]]], fraud: list[list[float]], edited: list[float]
) -> Calibration:
    settings = [sum(found, start=list[float]()) for found in honest.values()]
    # A setting that hardly differs has no tail to speak of; its "3 tokens" would hide what the others show.
    differing = [off for off in settings if _counted(off) > COUNTED_LEAST] or settings
    worst = [max(bounds) for bounds in zip(*map(tails, differing), strict=True)]
    # The first bin is the match: its share is what the worst setting really has, the others' are bounds.
    matches = min(sum(gap <= 0 for gap in off) / len(off) for off in settings)
    honest_ppb = [matches, *worst[1:]]
    mildest = min((shares(off) for off in fraud if off), key=lambda share: -share[0])
    even = [0.0] + [1 / len(EDGES_E4)] * len(EDGES_E4)
    put_in = [(seen + spread) / 2 for seen, spread in zip(shares(edited), even, strict=True)]
    return Calibration(
        edges_e4=EDGES_E4,
        honest_ppb=tuple(max(LEAST_PPB, math.ceil(share * 1e9)) for share in honest_ppb),
        fraud_ppm=tuple(max(1, round(share * 1e6)) for share in mildest),
        edited_ppm=(1, *(max(1, round(share * 1e6)) for share in put_in[1:])),
        honest_tokens=sum(map(len, settings)),
        source="scripts/calibrate.py: "
        + "; ".join(honest)
        + "; fraud: 4-bit weights quantized once more; edits",
    )


def likelihood_ratio(measured: Calibration, off: list[float]) -> list[float]:
    """Its mean over honest tokens: of other weights, and of edits."""
    bins = np.searchsorted(np.array(measured.edges_e4) / 10_000, off)
    return [float(np.exp(np.array(table)[bins]).mean()) for table in weights(measured)]


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a model's audit constants")
    parser.add_argument("model", help="a name in the store")
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "clusterai-models")
    parser.add_argument("--tokens", type=int, default=100_000, help="honest tokens in all")
    parser.add_argument("--how", default="q4_0", help="the fraud: see clusterai.models.alter")
    parser.add_argument("--out", type=Path, help="card to write")
    parser.add_argument("--gaps", type=Path, help="file for all gaps that were measured")
    chosen = parser.parse_args()
    store = ModelStore(chosen.store)
    model = store.get(chosen.model)

    def engine(weights: StoredModel, **settings: int | str) -> OpenVinoEngine:
        folder = openvino_folder(store, weights)
        words = model.tokenizer().vocabulary
        options: dict[str, object] = dict(settings)
        return OpenVinoEngine(folder, model.address, words, context=model.card.context, **options)  # type: ignore[arg-type]

    auditor = engine(model)
    honest: dict[str, list[list[float]]] = {}
    for name, (settings, part) in HONEST.items():
        began_s = time.monotonic()
        provider = engine(model, **settings)
        honest[name] = await gaps(provider, auditor, requests(model), round(chosen.tokens * part))
        await provider.close()
        report(name, honest[name], time.monotonic() - began_s)
    altered = chosen.store / "altered" / f"{chosen.model}-{chosen.how}.gguf"
    alter_weights(model.weights, altered, chosen.how)
    provider = engine(store.add_gguf(altered, f"{chosen.model}-{chosen.how}"))
    fraud = await gaps(provider, auditor, requests(model), max(2_000, chosen.tokens // 20))
    await provider.close()
    report(chosen.how, fraud, 0)
    provider = engine(model)
    edited = await edits(auditor, provider, requests(model), 300)
    await provider.close()
    await auditor.close()
    report("edited", [edited], 0)
    if chosen.gaps:
        chosen.gaps.write_bytes(msgspec.json.encode({"honest": honest, "fraud": fraud, "edited": edited}))
    measured = calibration(honest, fraud, edited)
    for name, found in honest.items():
        # The sequential test's bound holds as long as the likelihood ratio's mean under honesty is at most 1.
        means = likelihood_ratio(measured, sum(found, start=list[float]()))
        print(f"{name}: mean likelihood ratios {means[0]:.3f}, {means[1]:.3f}", flush=True)
        if max(means) > 1:
            raise SystemExit(f"{name} would be wronged: measure it on more tokens")
    card = msgspec.structs.replace(model.card, calibration=measured)
    if chosen.out:
        chosen.out.write_bytes(write_card(card))
    print(msgspec.json.format(msgspec.json.encode(card.calibration), indent=2).decode())


def report(name: str, found: list[list[float]], spent_s: float) -> None:
    off = np.array(sum(found, start=list[float]()))
    at = {f"{share:.2%}": round(float(np.quantile(off, share)), 3) for share in (0.95, 0.99, 0.999)}
    match = float(np.mean(off <= 0))
    print(
        f"{name}: {len(off)} tokens, match {match:.4f}, gaps {at}, max {off.max():.3f}, {spent_s:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
