"""Embeddings on OpenVINO: a BERT encoder, mean of the last states, length 1."""

import asyncio
import threading
from collections.abc import Sequence

import msgspec
import numpy as np
import openvino as ov
from tokenizers import Tokenizer

from clusterai.models.store import ModelStore, StoredModel
from clusterai.work.embedding.adapters.bert import BertConfig, bert_graph, read_safetensors

BATCH = 16
"""Texts in one call; more gain nothing on a CPU, and short texts would wait for long ones."""


class OpenVinoEmbedder:
    """See the port, `work.inference.embedding.Embedder`."""

    def __init__(self, store: ModelStore, model: StoredModel, *, threads: int = 1) -> None:
        store.verify(model)
        config = msgspec.json.decode(model.paths["config.json"].read_bytes(), type=BertConfig)
        graph = bert_graph(config, read_safetensors(model.paths["model.safetensors"]))
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
        self.model = bytes(model.address)
        self.size = config.hidden_size
        self.context = min(
            model.card.context or config.max_position_embeddings, config.max_position_embeddings
        )
        self._tokenizer = Tokenizer.from_file(str(model.paths["tokenizer.json"]))
        self._tokenizer.enable_truncation(self.context)
        self._tokenizer.no_padding()
        self._lock = threading.Lock()

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
        vectors: list[list[float]] = [[] for _ in texts]
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            rows = await asyncio.to_thread(self._compute, [tokens[at] for at in chosen])
            for at, row in zip(chosen, rows, strict=True):
                vectors[at] = row
        return vectors

    async def close(self) -> None:
        """Nothing runs between calls."""

    def _compute(self, batch: list[list[int]]) -> list[list[float]]:
        longest = max(map(len, batch))
        ids = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros((len(batch), longest), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        with self._lock:
            self._request.set_tensor("ids", ov.Tensor(ids))
            self._request.set_tensor("mask", ov.Tensor(mask))
            self._request.infer()
            rows = np.array(self._request.get_output_tensor(0).data, dtype=np.float32)
        return [row.tolist() for row in rows]
