"""The script that measures a card's constants: what it calls honest is never less than the truth."""

import math
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytestmark = pytest.mark.model

SCRIPT = Path(__file__).parents[3] / "scripts" / "calibrate.py"


@pytest.fixture(scope="module")
def calibrate() -> ModuleType:
    spec = util.spec_from_file_location("calibrate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [1.0, 1.5, 2.0])
def test_tails_are_bounds_beyond_what_was_counted(calibrate: ModuleType, seed: int, shape: float) -> None:
    """For errors whose tails fall as an exponential or faster, up to a normal one, no share is below the true one."""
    random = np.random.default_rng(seed)
    count, some, width = 20_000, 0.05, 0.12
    off = np.zeros(count)
    off[: int(count * some)] = width * random.weibull(shape, int(count * some))
    bounds = calibrate.tails(off.tolist())
    for edge, bound in zip(calibrate.EDGES_E4[1:], bounds[2:], strict=True):
        assert bound >= some * math.exp(-((edge / 10_000 / width) ** shape))
    assert bounds == sorted(bounds, reverse=True)


def test_where_nothing_differs_nothing_is_drawn_out(calibrate: ModuleType) -> None:
    """A setting without any gap bounds shares by its size alone: three tokens."""
    assert calibrate.tails([0.0] * 3000) == pytest.approx([1.0] + [0.001] * len(calibrate.EDGES_E4))
