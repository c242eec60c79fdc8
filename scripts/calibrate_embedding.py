"""How far vectors of one model are apart under honest and dishonest work: the numbers behind `work.embedding.core.judge`.

    python scripts/calibrate_embedding.py [MODEL] [--speed]

Texts are this repository's own documents. `--speed` prints texts a second instead, by the clock and by the processor (what an idle core would do).
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

import clusterai.work.embedding.adapters.openvino_engine as engines
from clusterai.models import ModelStore, StoredModel
from clusterai.runtime.adapters.config import default_models
from clusterai.work.embedding.adapters.openvino_engine import OpenVinoEmbedder
from clusterai.work.embedding.core.judge import quantised
from clusterai.work.embedding.spec import SCALE, ZERO

Rows = NDArray[np.float32]
ROOT = Path(__file__).resolve().parent.parent


def half(rows: Rows) -> Rows:
    return rows.astype(np.float16).astype(np.float32)


def bfloat16(rows: Rows) -> Rows:
    return ((rows.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


def eight_bits(rows: Rows) -> Rows:
    step = np.abs(rows).max(axis=1, keepdims=True) / 127 + 1e-12
    return (np.rint(rows / step) * step).astype(np.float32)


def texts_of(model: StoredModel, lengths: tuple[int, ...], each: int) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.from_file(str(model.paths["tokenizer.json"]))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.card.context)
    words = [word for path in sorted((ROOT / "docs").rglob("*.md")) for word in path.read_text().split()]
    dice = random.Random(3)
    starts = [(n, dice.randrange(len(words) - n)) for n in lengths for _ in range(each)]
    return [tuple(tokenizer.encode(" ".join(words[start : start + n])).ids) for n, start in starts]


async def compare(model: StoredModel) -> None:
    texts = texts_of(model, (1, 2, 5, 20, 60, 150), 10)
    base = OpenVinoEmbedder(model)
    right = await base.embed(texts)

    def show(name: str, rows: Rows) -> None:
        worst = np.abs(rows - right).max(axis=1)
        cosine = (rows * right).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(right, axis=1)
        print(
            f"{name:22} worst component {worst.min():.1e} .. {worst.max():.1e}   "
            f"cosine {cosine.min():.6f} .. {cosine.max():.6f}"
        )

    show("each text alone", np.concatenate([await base.embed([text]) for text in texts]))
    for threads in (2, 4):
        show(f"{threads} threads", await OpenVinoEmbedder(model, threads=threads).embed(texts))
    show("fixed point", ((quantised(right) - ZERO) / SCALE).astype(np.float32))
    read = engines.read_safetensors

    def altered(alter: Callable[[Rows], Rows]) -> Callable[[Path], dict[str, Rows]]:
        return lambda path: {key: alter(it) if it.ndim == 2 else it for key, it in read(path).items()}

    alterations: dict[str, Callable[[Rows], Rows]] = {
        "half-precision weights": half,
        "bfloat16 weights": bfloat16,
        "8-bit weights": eight_bits,
    }
    for name, alter in alterations.items():
        engines.read_safetensors = altered(alter)
        show(name, await OpenVinoEmbedder(model).embed(texts))
    engines.read_safetensors = read
    show("last word skipped", await base.embed([(*it[:-2], it[-1]) if len(it) > 3 else it for it in texts]))


async def speed(model: StoredModel) -> None:
    for words in (8, 32, 128):
        texts = texts_of(model, (words,), 64)
        for threads in (1, 2):
            engine = OpenVinoEmbedder(model, threads=threads)
            await engine.embed(texts[:16])
            began_s, worked_s = time.monotonic(), time.process_time()
            await engine.embed(texts)
            rate = len(texts) / (time.monotonic() - began_s)
            core = len(texts) / (time.process_time() - worked_s)
            tokens = sum(map(len, texts)) / len(texts)
            print(
                f"{tokens:5.0f} tokens a text, {threads} threads: {rate:7.1f} texts/s by the clock, "
                f"{core:7.1f} a second of processor"
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model", nargs="?", default="all-minilm-l6-v2")
    options.add_argument("--speed", action="store_true")
    given = options.parse_args()
    model = ModelStore(default_models()).get(given.model)
    asyncio.run(speed(model) if given.speed else compare(model))


if __name__ == "__main__":
    main()
