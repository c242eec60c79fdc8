"""Records as bytes: what is written is read, and a stranger's bytes are records or refused."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from clusterai.work.training.adapters.saving import NUMPY, SAFETENSORS, save_model
from clusterai.work.training.inside import records

SOME: records.Records = {
    "arrays": ("arrays", {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}),
    "metrics": ("metrics", {"loss": float("nan"), "count": 2**40, "list": [1.5, 2.5]}),
    "config": ("config", {"name": "é", "on": True, "raw": b"\0\xff", "words": ["a", "b"]}),
}


def test_what_is_written_is_read():
    """Arrays keep their kind and shape, numbers every bit."""
    read = records.decode(records.encode(SOME))
    assert list(read) == list(SOME)
    weights = read["arrays"][1]["w"]
    assert isinstance(weights, np.ndarray)
    assert weights.dtype == np.float32
    assert np.array_equal(weights, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert read["config"] == SOME["config"]
    assert read["metrics"][1]["count"] == 2**40
    assert read["metrics"][1]["loss"] != read["metrics"][1]["loss"]
    assert records.encode(read) == records.encode(SOME)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_are_records_or_refused(noise: bytes, at: int):
    """A program in the sandbox may leave what it likes."""
    whole = bytearray(records.encode(SOME))
    whole[at : at + len(noise)] = noise
    for data in (noise, bytes(whole)):
        with contextlib.suppress(records.BadRecords):
            records.decode(data)


@pytest.mark.parametrize(
    "header",
    [
        b'[["a","arrays",[["w",["a","|O8",[1]]]]]]',
        b'[["a","arrays",[["w",["a","<f8",[1000000,1000000]]]]]]',
        b'[["a","arrays",[["w",["a","<f8",[-1]]]]]]',
        b'[["a","metrics",[["w",["y",99]]]]]',
        b'[["a","metrics",[["w",["l",[["l",[]]]]]]]]',
        b'[["a","metrics",[["w",["i","9999999999999999999999"]]]]]',
        b'[["a","code",[]]]',
        b'[["a","config",[]],["a","config",[]]]',
        b"[" * 50_000,
    ],
)
def test_objects_huge_arrays_and_names_twice_are_refused(header: bytes):
    """Nothing that would be code, or memory that isn't there."""
    with pytest.raises(records.BadRecords):
        records.decode(records.MAGIC + len(header).to_bytes(4) + header)


def test_a_model_is_left_as_safetensors_too(tmp_path: Path):
    """The same arrays, with a header that says which run made them; bytes of the other order are turned round."""
    arrays = {
        "weights": np.arange(6.0).reshape(2, 3),
        "bias": np.arange(3, dtype=">f4"),
        "steps": np.array(7),
    }
    assert save_model(tmp_path, arrays, {"clusterai.run": "0x01"}) == ""
    opened: Any = safe_open
    with opened(tmp_path / SAFETENSORS, "numpy") as file:
        assert file.metadata() == {"clusterai.run": "0x01"}
        found = {name: file.get_tensor(name) for name in arrays}
    with np.load(tmp_path / NUMPY) as kept:
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            np.testing.assert_array_equal(kept[name], array)


def test_what_safetensors_cannot_hold_is_said_and_numpys_file_is_there(tmp_path: Path):
    """Complex numbers, and a name that the format keeps for itself."""
    assert "wave" in save_model(tmp_path, {"wave": np.zeros(2, np.complex64)}, {})
    assert "__metadata__" in save_model(tmp_path, {"__metadata__": np.zeros(2)}, {})
    assert (tmp_path / NUMPY).exists()
    assert not (tmp_path / SAFETENSORS).exists()
