"""A language model compiled by OpenVINO with paged attention: one call computes tokens of many sequences.

We own the key-value cache and its block tables. Two changes are made to the converted graph: attention reads and
writes blocks (OpenVINO's own transformation), and only rows that somebody wants go through the last projection, the widest
of the model: prefill doesn't pay for logits that nobody reads.
"""

from collections.abc import Sequence as Tokens
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13
from openvino._offline_transformations import paged_attention_transformation

from clusterai.work.inference.core.blocks import BLOCK
from clusterai.work.inference.core.schedule import Part

PRECISION = "f32"
"""Activations. With bf16, decode is as fast here, prefill 1.3 times, and logits are off by 0.1 on average."""

CACHE_PRECISION = "f16"
"""Keys and values. u8 would save as much again, but its rounding depends on how the prompt was cut into chunks."""


class PagedModel:
    """A compiled model and its cache.

    Args:
        folder: holds `openvino_model.xml` and its weights.
        cache_bytes: how much memory keys and values may take; touched only as it is used.
        threads: 1 gives the same bits whatever shares the batch. With more, a single stream is faster, and the
            kernel for one query splits its work by what else there is to do: rounding differs by 0.1 logits.
    """

    def __init__(
        self, folder: Path, *, cache_bytes: int, threads: int = 1, precision: str = PRECISION
    ) -> None:
        core = ov.Core()
        model = core.read_model(folder / "openvino_model.xml")
        paged_attention_transformation(model)
        _gather_before_logits(model)
        self.compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": precision,
                "KV_CACHE_PRECISION": CACHE_PRECISION if precision == "f32" else precision,
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.vocabulary = int(self.compiled.output("logits").partial_shape[2].get_length())
        self._request = self.compiled.create_infer_request()
        caches = [port for port in self.compiled.inputs if "_cache." in port.any_name]
        shapes = [[int(port.partial_shape[axis].get_length()) for axis in (1, 2, 3)] for port in caches]
        width = sum(
            int(np.prod(shape)) * port.element_type.size for port, shape in zip(caches, shapes, strict=True)
        )
        self.blocks = max(2, cache_bytes // width)
        self._caches: list[NDArray[Any]] = []
        for port, shape in zip(caches, shapes, strict=True):
            if shape[1] != BLOCK:
                raise RuntimeError(
                    f"this OpenVINO wants blocks of {shape[1]} tokens, not {BLOCK}; use 2026.4"
                )
            tensor = ov.Tensor(port.element_type, ov.Shape([self.blocks, *shape]))
            self._request.set_tensor(port.any_name, tensor)
            self._caches.append(tensor.data)

    def copy(self, source: int, target: int) -> None:
        """Give block `target` the keys and values of block `source`. 0.2 ms; a token's prefill takes 1.2."""
        for cache in self._caches:
            cache[target] = cache[source]

    def compute(self, parts: Tokens[Part], wanted: Tokens[int]) -> NDArray[np.float32]:
        """Run one step.

        Args:
            parts: what the scheduler planned; their order is the order of rows.
            wanted: rows, counted over all tokens of all parts, whose logits are wanted.

        Returns:
            (len(wanted), vocabulary), valid until the next call.
        """
        ids: list[int] = []
        positions: list[int] = []
        past: list[int] = []
        begins = [0]
        table: list[int] = []
        table_begins = [0]
        for part in parts:
            sequence = part.sequence
            ids += sequence.tokens[part.start : part.end]
            positions += range(part.start, part.end)
            for start, end in (
                ((at, at + 1) for at in range(part.start, part.end))
                if part.single
                else ((part.start, part.end),)
            ):
                past.append(start)
                begins.append(begins[-1] + end - start)
                table += sequence.blocks[: -(-end // BLOCK)]
                table_begins.append(len(table))
        longest = max(part.end for part in parts)
        self._set("input_ids", ids, np.int64)
        self._set("position_ids", positions, np.int64)
        self._set("past_lens", past, np.int32)
        self._set("subsequence_begins", begins, np.int32)
        self._set("block_indices", table, np.int32)
        self._set("block_indices_begins", table_begins, np.int32)
        self._set("max_context_len", longest, np.int32)
        self._set("wanted", wanted, np.int32)
        self._request.infer()
        logits: NDArray[np.float32] = self._request.get_tensor("logits").data
        return logits.reshape(len(wanted), self.vocabulary)

    def _set(self, name: str, values: Any, kind: type[np.integer[Any]]) -> None:
        self._request.set_tensor(name, ov.Tensor(np.asarray(values, dtype=kind)))


def _gather_before_logits(model: Any) -> None:
    """Put rows[wanted] before the last projection."""
    projection = model.get_results()[0].input_value(0).get_node()
    if projection.get_type_name() != "MatMul":
        raise RuntimeError(
            f"the model ends in {projection.get_type_name()}, not in a projection; not supported yet"
        )
    wanted = opset13.parameter([-1], np.int32, name="wanted")
    wanted.output(0).set_names({"wanted"})
    rows = opset13.gather(projection.input_value(0), wanted, opset13.constant(np.int32(0)))
    projection.input(0).replace_source_output(rows.output(0))
    model.add_parameters([wanted])
    model.validate_nodes_and_infer_types()
