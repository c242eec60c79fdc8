"""Inputs for sealed inference, as files hold them."""

from pathlib import Path

import numpy as np
import pytest

from clusterai.cli.failure import Failure
from clusterai.cli.inferring import rows_of, stored
from clusterai.cli.main import run

FEATURES = ("age", "weight")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "name,weight,age\nx,2,1\ny,4,3\n"),
        ("a.csv", "1,2\n3,4\n"),
        ("a.json", "[[1,2],[3,4]]"),
        ("a.json", '[{"age":1,"weight":2,"more":9},{"weight":4,"age":3}]'),
    ],
)
def test_inputs_are_read_by_name_or_in_order(tmp_path: Path, name: str, text: str):
    """Tables and objects are read by the features' names, bare numbers in their order."""
    (tmp_path / name).write_text(text)
    assert rows_of(tmp_path / name, FEATURES).tolist() == [[1, 2], [3, 4]]


def test_arrays_and_lone_inputs_are_read(tmp_path: Path):
    """One input needs no brackets around it, in any format."""
    np.save(tmp_path / "a.npy", np.array([1, 2]))
    (tmp_path / "b.json").write_text('{"age": 1, "weight": 2}')
    (tmp_path / "c.json").write_text("[1, 2]")
    for name in ("a.npy", "b.json", "c.json"):
        assert rows_of(tmp_path / name, FEATURES).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.csv", "age\n1\n", "no column 'weight'"),
        ("a.csv", "1,x\n", "could not convert"),
        ("a.csv", "", "shape"),
        ("a.json", '{"age": 1}', "no 'weight'"),
        ("a.json", "[[1]]", "shape"),
        ("a.json", "{", "Input data was truncated"),
        ("a.npy", "no array", "."),
        ("a.txt", "1,2", ".txt"),
    ],
)
def test_files_that_hold_no_inputs_say_why(tmp_path: Path, name: str, text: str, why: str):
    """A missing column, a word among numbers, another width or another format: the person hears which."""
    (tmp_path / name).write_text(text)
    with pytest.raises(Failure) as raised:
        rows_of(tmp_path / name, FEATURES)
    assert why in raised.value.what + raised.value.why


def test_a_model_of_ones_own_is_added_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with shape and weights becomes a model by content; one whose outputs could overflow, or none, is refused."""
    monkeypatch.setenv("CLUSTERAI_MODELS", str(tmp_path / "models"))
    folder = tmp_path / "mine"
    folder.mkdir()
    assert run(["model", "add", str(folder)]) == 5
    shape = '{"features":["a"],"outputs":["b"],"centre":[0.0],"spread":[1.0],"bound":4.0,"link":"identity",'
    (folder / "shape.json").write_text(shape + '"order":1,"degree":2048,"input_bits":20,"weight_bits":12}')
    (folder / "weights.json").write_text('{"type":"linear","rows":[[1099511627776,0]]}')
    assert run(["model", "add", str(folder)]) == 1
    (folder / "weights.json").write_text('{"type":"linear","rows":[[4096,0]]}')
    assert run(["model", "add", str(folder), "--licence", "mit"]) == 0
    model, found = stored("mine")
    assert (model.card.kind, model.card.licence, found.outputs) == ("sealed", "mit", ("b",))


def test_models_for_the_clear_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A model that reads plain inputs is no model to encrypt for, and an unknown one is named."""
    monkeypatch.setenv("CLUSTERAI_MODELS", str(tmp_path))
    assert stored("sealed-digits")[1].outputs == tuple("0123456789")
    with pytest.raises(Failure, match="in the clear"):
        stored("all-minilm-l6-v2")
    with pytest.raises(Failure, match="no model 'nobody'"):
        stored("nobody")
