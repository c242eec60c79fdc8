"""What an audit costs, whether it wrongs anybody, and how soon it catches each villain.

    python bench/audit.py [--tokens 100000] [--only cost,villains,honest]

1. Cost: processor seconds to check an answer over those to make it, alone and in a batch of 16. Both engines are warm, and
   have seen the system prompt, as they have in a network; no two questions are alike.
2. For each villain, how many checked tokens until the sequential test convicts: from where everyone begins, and
   from the floor, where an honest past leads. Counted to the token with which the evidence is enough; receipts in turn,
   beginning with each of them once.
3. False positives: honest answers in waves of 1 to 32, checked until there are `--tokens` tokens, half of them from providers
   whose arithmetic isn't ours: bf16, and two threads.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median, quantiles

import msgspec
import numpy as np

from clusterai.audit.core.sequential import BOUND_MILLI, FLOOR_MILLI, add, convinced
from clusterai.models import ChatTemplate, ModelStore, StoredModel
from clusterai.models.adapters.openvino_convert import openvino_folder
from clusterai.models.alter import alter_weights
from clusterai.models.core import gguf
from clusterai.work.inference import Generation, Sampling
from clusterai.work.inference.adapters.load import load_engine
from clusterai.work.inference.adapters.openvino_engine import OpenVinoEngine
from clusterai.work.inference.check import check, judge_answer
from clusterai.work.inference.core.weight import Scales
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
        self.topics: dict[tuple[int, ...], str] = {}

    def prompt(self, topic: str, system: str | None = None) -> tuple[int, ...]:
        turns = [{"role": "system", "content": system}] if system else []
        return self.tokenizer.encode(self.template.render([*turns, {"role": "user", "content": topic}]))

    def __call__(self, sampling: Sampling | None = None, system: str | None = None) -> Generation:
        self.number += 1
        kind = sampling or SAMPLINGS[self.number % len(SAMPLINGS)]
        topic = f"({self.number}) {TOPICS[self.number % len(TOPICS)]}"
        seeded = msgspec.structs.replace(kind, seed=self.number)
        prompt = self.prompt(topic, system)
        self.topics[prompt] = topic
        return Generation(self.model.address, prompt, seeded, max_tokens=128)


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


async def running_weights(auditor: Engine, made: Sequence[Made]) -> list[list[int]]:
    """For each receipt, what it weighs after each of its tokens."""
    receipts: list[list[int]] = []
    for generation, tokens, reason in made:
        found, gaps = await judge_answer(auditor, generation, tokens, reason)
        scales = Scales(auditor.calibration)
        weights: list[int] = []
        for gap in gaps:
            scales.add(gap)
            weights.append(scales.milli)
        receipts.append(weights or [0] * max(0, found.tokens - 1) + [found.weight_milli])
    return receipts


def tokens_to_convict(receipts: Sequence[list[int]], state: int) -> int | None:
    count = 0
    for weights in receipts:
        for at, weight in enumerate(weights, 1):
            if convinced(state + weight):
                return count + at
        state = add(state, weights[-1])
        count += len(weights)
    return None


async def tell(name: str, auditor: Engine, made: Sequence[Made]) -> None:
    receipts = await running_weights(auditor, made)
    line = f"{name:>34}: "
    for label, start in (("from 0", 0), ("from the floor", FLOOR_MILLI)):
        turns = [[*receipts[at:], *receipts[:at]] for at in range(len(receipts))]
        counts = [tokens_to_convict(turn, start) for turn in turns]
        caught = [count for count in counts if count is not None]
        line += f"{label} "
        if len(caught) > 1:
            line += (
                f"{median(caught):.0f}, nine of ten {quantiles(caught, n=10)[-1]:.0f}, worst {max(caught)}; "
            )
        line += f"{len(caught)}/{len(counts)} caught   "
    average = sum(weights[-1] for weights in receipts) / len(receipts) / 1000
    size = sum(map(len, receipts)) / len(receipts)
    print(f"{line}a receipt of {size:.0f} tokens weighs {average:+.1f} nats", flush=True)


async def put_in(provider: Engine, made: Made, likely: bool, random: Random) -> Made:
    """One token of the answer replaced, and honestly on from there: an advertisement, a word that was to be avoided.

    Args:
        likely: by one that the model itself might have drawn there; else by any.
    """
    generation, tokens, reason = made
    at = random.randrange(max(1, len(tokens) // 2))
    other = random.randrange(100, provider.vocabulary)
    if likely:
        hot = msgspec.structs.replace(generation, so_far=tokens[:at], max_tokens=at + 1)
        for seed in range(1, 200):
            sampling = msgspec.structs.replace(generation.sampling, temperature_ppm=1_000_000, seed=seed)
            _, (other, *_), _ = await make(provider, msgspec.structs.replace(hot, sampling=sampling))
            if other not in (tokens[at], *provider.words.ends):
                break
    begun = (*tokens[:at], other)
    _, rest, reason = await make(provider, msgspec.structs.replace(generation, so_far=begun))
    return generation, begun + rest, reason


def edited(made: Made, at: int = 10) -> Made:
    """One token replaced by any other, the rest kept."""
    generation, tokens, reason = made
    at = min(at, len(tokens) - 2)
    other = (tokens[at] + 1) % 49_000 + 100
    return generation, (*tokens[:at], other, *tokens[at + 1 :]), reason


def drop_layers(source: Path, target: Path, layers: range) -> None:
    """Weights of a model without these layers: what they would add is zero."""
    target.parent.mkdir(parents=True, exist_ok=True)
    data = np.fromfile(source, np.uint8)
    dropped = {f"blk.{layer}.{part}.weight" for layer in layers for part in ("attn_output", "ffn_down")}
    for tensor in gguf.read(data.data).tensors:
        if tensor.name in dropped:
            data[tensor.start : tensor.start + tensor.size] = 0
    data.tofile(target)


async def cost(asker: Asker, provider: Engine, auditor: Engine) -> None:
    for streams in (0, 1, 16, 1, 16):
        requests = [asker(SAMPLINGS[0]) for _ in range(16)]
        began_s = time.process_time()
        made: list[Made] = []
        width = streams or 16
        for start in range(0, 16, width):
            made += await asyncio.gather(*(make(provider, one) for one in requests[start : start + width]))
        making_s, began_s = time.process_time() - began_s, time.process_time()
        await check(auditor, made)
        checking_s = time.process_time() - began_s
        count = sum(len(tokens) for _, tokens, _ in made)
        if streams:
            print(
                f"cost, {streams} stream(s): making {1000 * making_s / count:.2f}, checking "
                f"{1000 * checking_s / count:.2f} ms of processor a token: {checking_s / making_s:.1%}",
                flush=True,
            )


async def villains(
    asker: Asker, provider: Engine, auditor: Engine, store: ModelStore, chosen: argparse.Namespace
) -> None:
    model = asker.model
    folder = chosen.store / "altered"
    for how in ("q4_0", "q3", "noise", "27 of 30 layers"):
        path = folder / f"{model.card.name}-{how.replace(' ', '-')}.gguf"
        if how.endswith("layers"):
            drop_layers(model.weights, path, range(20, 23))
        else:
            alter_weights(model.weights, path, how)
        cheat = load_engine(store, model, weights=store.add_gguf(path, path.stem))
        made = await asyncio.gather(*(make(cheat, asker()) for _ in range(chosen.answers)))
        await tell(f"other weights ({how})", auditor, made)
        await cheat.close()
    requests = [asker() for _ in range(chosen.answers)]
    made = await asyncio.gather(*(make(provider, request) for request in requests))
    random = Random(1)
    for likely in (False, True):
        put = await asyncio.gather(*(put_in(provider, one, likely, random) for one in made))
        await tell(f"one {'likely' if likely else 'odd'} token put in", auditor, put)
    await tell("one token replaced, the rest kept", auditor, [edited(one) for one in made])
    await tell("cut answers", auditor, [(g, t[:-1], "stop") for g, t, _ in made])
    lied = [(_seeded(g, 1), t, r) for g, t, r in made if g.sampling.temperature_ppm]
    await tell("another seed", auditor, lied)
    asked = [asker(system=SYSTEM) for _ in range(chosen.answers)]
    short = [msgspec.structs.replace(one, prompt=asker.prompt(asker.topics[one.prompt])) for one in asked]
    made = await asyncio.gather(*(make(provider, one) for one in short))
    skipped = [(one, tokens, reason) for one, (_, tokens, reason) in zip(asked, made, strict=True)]
    await tell("skipped system prompt", auditor, skipped)


def _seeded(generation: Generation, seed: int) -> Generation:
    return msgspec.structs.replace(
        generation, sampling=msgspec.structs.replace(generation.sampling, seed=seed)
    )


async def honest(asker: Asker, name: str, provider: Engine, auditor: Engine, tokens: int) -> None:
    """The state that a validator keeps of the provider, and the farthest that it ever rose from wherever it had sunk."""
    count, matches, largest, heaviest = 0, 0, 0, -math.inf
    state, highest, lowest, climb = 0, 0, 0, 0
    wave = 0
    waves = (1, 4, 16, 32)
    while count < tokens:
        made = await asyncio.gather(*(make(provider, asker()) for _ in range(waves[wave % len(waves)])))
        wave += 1
        for found in await check(auditor, made):
            count += found.tokens
            matches += found.matches
            largest = max(largest, found.largest_gap_milli)
            heaviest = max(heaviest, found.weight_milli)
            state = add(state, found.weight_milli)
            highest = max(highest, state)
            lowest = min(lowest, state)
            climb = max(climb, state - lowest)
    print(
        f"honest, {name}: {count} tokens, {count - matches} not matched, largest gap {largest / 1000} logits, "
        f"heaviest receipt {heaviest / 1000:+.2f} nats, highest state {highest / 1000}, "
        f"longest climb {climb / 1000} (conviction at {BOUND_MILLI / 1000})",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description="Cost, false positives and power of the audit")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--answers", type=int, default=24, help="answers of each villain")
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "clusterai-models")
    parser.add_argument("--only", default="cost,villains,honest")
    chosen = parser.parse_args()
    store = ModelStore(chosen.store)
    model = store.get("smollm2-135m")
    asker = Asker(model)
    auditor, provider = load_engine(store, model), load_engine(store, model)
    if "cost" in chosen.only:
        await cost(asker, provider, auditor)
    if "villains" in chosen.only:
        await villains(asker, provider, auditor, store, chosen)
    if "honest" in chosen.only:
        folder, words = openvino_folder(store, model), model.tokenizer().vocabulary
        await honest(asker, "arithmetic as ours", provider, auditor, chosen.tokens // 2)
        for name, threads, precision in (("two threads", 2, "f32"), ("bf16", 1, "bf16")):
            other = OpenVinoEngine(
                folder, model.address, words, context=model.card.context, threads=threads, precision=precision
            )
            await honest(asker, name, other, auditor, chosen.tokens // 4)
            await other.close()
    await provider.close()
    await auditor.close()


if __name__ == "__main__":
    asyncio.run(main())
