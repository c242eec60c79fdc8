"""The vectors of what an answer's gaps weigh, computed again by the spec's formula and by our code."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from clusterai.models import Calibration
from clusterai.work.inference.core.weight import Scales

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "weights.json").read_text())
EDGES: list[int] = VECTORS["edges_e4"]
CASES: list[dict[str, Any]] = VECTORS["cases"]


def by_the_spec(gaps_e4: list[int]) -> float:
    """In nats; the tables written out as `docs/spec/05-audit.md` says them."""
    honest = [share / 1e9 for share in VECTORS["honest_ppb"]]
    sums = [0.0, 0.0]
    for gap in gaps_e4:
        bins = range(sum(gap > edge for edge in EDGES) + 1)
        sums[0] += max(math.log(VECTORS["fraud_ppm"][at] / 1e6 / honest[at]) for at in bins)
        sums[1] += max(math.log(1 + (VECTORS["edited_ppm"][at] / 1e6 / honest[at] - 1) / 256) for at in bins)
    return math.log(math.exp(sums[0]) / 4 + 3 * math.exp(sums[1]) / 4)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_answer_weighs_what_the_vector_says(case: dict[str, Any]) -> None:
    """To a thousandth of a nat; gaps are in ten-thousandths of a logit."""
    shares = (tuple(VECTORS[name]) for name in ("edges_e4", "honest_ppb", "fraud_ppm", "edited_ppm"))
    scales = Scales(Calibration(*shares, honest_tokens=1, source="vector"))
    for gap in case["gaps_e4"]:
        scales.add(gap / 10_000)
    assert abs(scales.milli - case["weight_milli"]) <= 1
    assert abs(1000 * by_the_spec(case["gaps_e4"]) - case["weight_milli"]) <= 1
