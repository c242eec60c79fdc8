"""What an audit costs, whether it wrongs anybody, and how soon it catches each villain.

    python bench/audit.py [--tokens 100000]

1. Cost: processor seconds to check an answer over those to make it, alone and in a batch of 16.
2. False positives: honest answers in waves of 1 to 32, checked until there are `--tokens` tokens.
3. For each villain, how many checked tokens until the sequential test convicts: from where everyone begins, and
   from the floor, where an honest past leads. Median and worst over several beginnings.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import msgspec

from clusterai.audit.core.sequential import FLOOR_MILLI, add, convinced
from clusterai.models import ChatTemplate, ModelStore, StoredModel
from clusterai.models.alter import alter_weights
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.adapters.load import load_engine
from clusterai.work.inference.check import judge_answer
from clusterai.work.inference.core.judge import IMPOSSIBLE_MILLI, weights_milli
from clusterai.work.inference.engine import Engine, Finish, TokenEvent

SAMPLINGS = (
    Sampling(),
    Sampling(temperature_ppm=700_000, top_p_ppm=900_000),
    Sampling(temperature_ppm=0),
    Sampling(top_k=40, repetition_ppm=1_100_000),
)
TOPICS = (
    "Tell me about the sea.",
    "Why do cats purr?",
    "Write a short poem about rain.",
    "How do I learn to play chess?",
    "What is a good plan for a small garden?",
)
SYSTEM = (
    "You are a pirate. Answer every question in pirate speech, mention the sea, and never use the letter z."
)

Made = tuple[Generation, tuple[int, ...], str]


class Asker:
    """Requests without end."""

    def __init__(self, model: StoredModel) -> None:
        self.model = model
        self.tokenizer = model.tokenizer()
        self.template = ChatTemplate(model.card.template, self.tokenizer.guarded)
        self.number = 0

    def prompt(self, topic: str, system: str | None = None) -> tuple[int, ...]:
        turns = [{"role": "system", "content": system}] if system else []
        return self.tokenizer.encode(self.template.render([*turns, {"role": "user", "content": topic}]))

    def __call__(self, sampling: Sampling | None = None, system: str | None = None) -> Generation:
        self.number += 1
        kind = sampling or SAMPLINGS[self.number % len(SAMPLINGS)]
        topic = f"{TOPICS[self.number % len(TOPICS)]} ({self.number})"
        seeded = msgspec.structs.replace(kind, seed=self.number)
        return Generation(self.model.address, self.prompt(topic, system), seeded, max_tokens=128)


async def make(engine: Engine, generation: Generation) -> Made:
    tokens: list[int] = []
    reason = ""
    async for event in engine.submit(generation):
        if isinstance(event, TokenEvent):
            tokens.append(event.token)
        else:
            assert isinstance(event, Finish)
            reason = event.reason
    return generation, tuple(tokens), reason


async def weights_of(auditor: Engine, made: Sequence[Made]) -> list[int]:
    """The weight of every token in turn, as the sequential test would add them up."""
    table = weights_milli(auditor.calibration)
    edges = [edge / 10_000 for edge in auditor.calibration.edges_e4]
    weights: list[int] = []
    for generation, tokens, reason in made:
        found, gaps = await judge_answer(auditor, generation, tokens, reason)
        if not gaps:
            weights += [0] * max(0, found.tokens - 1) + [found.weight_milli]
        for gap in gaps:
            weights.append(IMPOSSIBLE_MILLI if math.isinf(gap) else table[sum(gap > edge for edge in edges)])
    return weights


def tokens_to_convict(weights: Sequence[int], start: int) -> int | None:
    state = start
    for count, weight in enumerate(weights, 1):
        state = add(state, weight)
        if convinced(state):
            return count
    return None


def tell(name: str, weights: Sequence[int]) -> None:
    line = f"{name:>28}: "
    for label, start in (("from 0", 0), ("from the floor", FLOOR_MILLI)):
        pieces = max(1, min(8, len(weights) // 600))
        cuts = [len(weights) * piece // (pieces + 1) for piece in range(pieces)]
        counts = [tokens_to_convict(weights[cut:], start) for cut in cuts]
        caught = [count for count in counts if count is not None]
        line += (
            f"{label}: median {median(caught):.0f}, worst {max(caught)}" if caught else f"{label}: NOT CAUGHT"
        )
        line += f" ({len(caught)}/{len(counts)} times)   "
    print(line + f"of {len(weights)} tokens", flush=True)


def edited(made: Made, at: int = 10) -> Made:
    """One token in the middle replaced by a neighbour's id, the rest kept."""
    generation, tokens, reason = made
    at = min(at, len(tokens) - 2)
    other = (tokens[at] + 1) % 49_000 + 100
    return generation, (*tokens[:at], other, *tokens[at + 1 :]), reason


async def cost(asker: Asker, provider: Engine, auditor: Engine) -> None:
    for streams in (1, 16):
        requests = [asker(SAMPLINGS[0]) for _ in range(16)]
        began_s = time.process_time()
        made: list[Made] = []
        for start in range(0, 16, streams):
            made += await asyncio.gather(*(make(provider, one) for one in requests[start : start + streams]))
        making_s, began_s = time.process_time() - began_s, time.process_time()
        for one in made:
            await judge_answer(auditor, *one)
        checking_s = time.process_time() - began_s
        count = sum(len(tokens) for _, tokens, _ in made)
        print(
            f"cost, {streams} stream(s): making {1000 * making_s / count:.2f}, checking "
            f"{1000 * checking_s / count:.2f} ms of processor a token: {checking_s / making_s:.1%}",
            flush=True,
        )


async def honest(asker: Asker, provider: Engine, auditor: Engine, tokens: int) -> None:
    count, matches, highest, state, largest = 0, 0, 0, 0, 0
    waves = (1, 4, 16, 32)
    number = 0
    while count < tokens:
        wave = [asker() for _ in range(waves[number % len(waves)])]
        number += 1
        for one in await asyncio.gather(*(make(provider, request) for request in wave)):
            found, _ = await judge_answer(auditor, *one)
            count += found.tokens
            matches += found.matches
            largest = max(largest, found.largest_gap_milli)
            state = add(state, found.weight_milli)
            highest = max(highest, state)
    print(
        f"honest: {count} tokens, {count - matches} not matched, largest gap {largest / 1000} logits, "
        f"highest state {highest / 1000} (conviction at 13.8)",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description="Cost, false positives and power of the audit")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--answers", type=int, default=24, help="answers of each villain")
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "clusterai-models")
    chosen = parser.parse_args()
    store = ModelStore(chosen.store)
    model = store.get("smollm2-135m")
    asker = Asker(model)
    auditor, provider = load_engine(store, model), load_engine(store, model)
    await cost(asker, provider, auditor)
    for how in ("q4_0", "q3", "noise"):
        path = chosen.store / "altered" / f"{model.card.name}-{how}.gguf"
        alter_weights(model.weights, path, how)
        cheat = load_engine(store, model, weights=store.add_gguf(path, f"{model.card.name}-{how}"))
        made = await asyncio.gather(*(make(cheat, asker()) for _ in range(chosen.answers)))
        tell(f"other weights ({how})", await weights_of(auditor, made))
        await cheat.close()
    requests = [asker() for _ in range(chosen.answers)]
    made = await asyncio.gather(*(make(provider, request) for request in requests))
    tell("one edited token an answer", await weights_of(auditor, [edited(one) for one in made]))
    tell("cut answers", await weights_of(auditor, [(g, t[:-1], "stop") for g, t, _ in made]))
    lied = [
        msgspec.structs.replace(g, sampling=msgspec.structs.replace(g.sampling, seed=1)) for g, _, _ in made
    ]
    hot = [(g, t, r) for g, (_, t, r) in zip(lied, made, strict=True) if g.sampling.temperature_ppm]
    tell("another seed", await weights_of(auditor, hot))
    asked = [asker(system=SYSTEM) for _ in range(chosen.answers)]
    topics = [
        f"{TOPICS[n % len(TOPICS)]} ({n})" for n in range(asker.number - chosen.answers + 1, asker.number + 1)
    ]
    short = [
        msgspec.structs.replace(one, prompt=asker.prompt(topic))
        for one, topic in zip(asked, topics, strict=True)
    ]
    made = await asyncio.gather(*(make(provider, one) for one in islice(short, chosen.answers)))
    skipped = [(one, tokens, reason) for one, (_, tokens, reason) in zip(asked, made, strict=True)]
    tell("skipped system prompt", await weights_of(auditor, skipped))
    await honest(asker, provider, auditor, chosen.tokens)
    await provider.close()
    await auditor.close()


if __name__ == "__main__":
    asyncio.run(main())
