"""A BERT encoder as an OpenVINO graph, straight from its safetensors: no torch, no exporter.

Source: Devlin et al. 2018; the weights' names are Hugging Face's `BertModel`.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op

MOST_HEADER = 16_000_000


class BertConfig(msgspec.Struct, frozen=True):
    """The part of config.json that shapes the graph."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    max_position_embeddings: int
    layer_norm_eps: float
    hidden_act: str


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """All float32 tensors of a file, mapped, not copied.

    Source: the safetensors format: u64 length, JSON header, data.
    """
    data = np.memmap(path, np.uint8, mode="r")
    size = int(data[:8].view(np.uint64)[0])
    if size > min(MOST_HEADER, len(data) - 8):
        raise ValueError(f"{path.name} announces a header of {size} bytes; the file is damaged, get it again")
    header: dict[str, Any] = json.loads(bytes(data[8 : 8 + size]))
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            raw = data[8 + size + start : 8 + size + end]
            tensors[name] = np.frombuffer(raw.tobytes(), np.float32).reshape(entry["shape"])
    return tensors


def bert_graph(config: BertConfig, weights: dict[str, NDArray[np.float32]]) -> ov.Model:
    """ids, mask (texts, tokens) int64 to the mean of the last states, scaled to length 1, (texts, hidden)."""
    if config.hidden_act != "gelu":
        raise ValueError(f"activation {config.hidden_act!r} is not supported; use a BERT with gelu")
    ids = _input("ids")
    mask = _input("mask")
    real = op.convert(mask, "f32")
    hidden = _embed(ids, config, weights)
    # (texts, 1, 1, tokens): 0 where there is a token, a large negative number where there is padding.
    closed = op.multiply(op.subtract(_constant(1.0), real), _constant(-1e9))
    closed = op.unsqueeze(closed, op.constant([1, 2], np.int64))
    for layer in range(config.num_hidden_layers):
        hidden = _layer(hidden, closed, config, weights, f"encoder.layer.{layer}")
    share = op.unsqueeze(real, op.constant([2], np.int64))
    axis = op.constant([1], np.int64)
    mean = op.divide(op.reduce_sum(op.multiply(hidden, share), axis), op.reduce_sum(share, axis))
    make: Any = ov.Model
    return make([op.normalize_l2(mean, axis, 1e-12, "max")], [ids, mask], "bert")


def _embed(ids: Any, config: BertConfig, weights: dict[str, NDArray[np.float32]]) -> Any:
    zero = op.constant(0, np.int64)
    words = op.gather(_weight(weights, "embeddings.word_embeddings.weight"), ids, zero)
    count = op.gather(op.shape_of(ids), op.constant(1, np.int64), zero)
    places = op.range(zero, count, op.constant(1, np.int64), "i64")
    position = op.gather(_weight(weights, "embeddings.position_embeddings.weight"), places, zero)
    kind = op.constant(weights["embeddings.token_type_embeddings.weight"][0])
    return _norm(op.add(op.add(words, kind), position), config, weights, "embeddings.LayerNorm")


def _layer(
    hidden: Any, closed: Any, config: BertConfig, weights: dict[str, NDArray[np.float32]], name: str
) -> Any:
    heads = config.num_attention_heads
    width = config.hidden_size // heads

    def split(part: str) -> Any:
        flat = _linear(hidden, weights, f"{name}.attention.self.{part}")
        apart = op.reshape(flat, op.constant([0, 0, heads, width], np.int64), special_zero=True)
        return op.transpose(apart, op.constant([0, 2, 1, 3], np.int64))

    scores = op.matmul(split("query"), split("key"), transpose_a=False, transpose_b=True)
    scores = op.add(op.multiply(scores, _constant(width**-0.5)), closed)
    mixed = op.matmul(op.softmax(scores, 3), split("value"), transpose_a=False, transpose_b=False)
    mixed = op.transpose(mixed, op.constant([0, 2, 1, 3], np.int64))
    mixed = op.reshape(mixed, op.constant([0, 0, config.hidden_size], np.int64), special_zero=True)
    mixed = _linear(mixed, weights, f"{name}.attention.output.dense")
    hidden = _norm(op.add(mixed, hidden), config, weights, f"{name}.attention.output.LayerNorm")
    wide = op.gelu(_linear(hidden, weights, f"{name}.intermediate.dense"), "erf")
    narrow = _linear(wide, weights, f"{name}.output.dense")
    return _norm(op.add(narrow, hidden), config, weights, f"{name}.output.LayerNorm")


def _linear(value: Any, weights: dict[str, NDArray[np.float32]], name: str) -> Any:
    product = op.matmul(value, _weight(weights, f"{name}.weight"), transpose_a=False, transpose_b=True)
    return op.add(product, _weight(weights, f"{name}.bias"))


def _norm(value: Any, config: BertConfig, weights: dict[str, NDArray[np.float32]], name: str) -> Any:
    centred = op.mvn(value, op.constant([2], np.int64), True, config.layer_norm_eps, "inside_sqrt")
    return op.add(op.multiply(centred, _weight(weights, f"{name}.weight")), _weight(weights, f"{name}.bias"))


def _weight(weights: dict[str, NDArray[np.float32]], name: str) -> Any:
    if name not in weights:
        raise ValueError(f"the file lacks {name!r}: it is not a BERT encoder in float32; use another model")
    return op.constant(weights[name])


def _constant(value: float) -> Any:
    return op.constant(np.float32(value))


def _input(name: str) -> Any:
    parameter = op.parameter([-1, -1], np.int64, name=name)
    parameter.output(0).set_names({name})
    return parameter
