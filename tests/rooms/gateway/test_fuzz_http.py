"""A fuzzer finds no request that makes the gateway crash, hang or answer what its OpenAPI file doesn't describe."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterai.gateway.core.limits import Limits
from tests.rooms.gateway.bed import Bed
from tests.rooms.gateway.fuzz_http import SILENCE_S, fuzz, fuzz_all, make_bed

ROOT = Path(__file__).resolve().parents[3]
SEED = 7
EXAMPLES = 40
"""About half a minute; `fuzz_http` by hand takes as many as one has time for."""
LEAST_CASES = 1000


class PlantedBed(Bed):
    """Its gateway has a bug for whom asks for one."""

    GATEWAY = "tests.rooms.gateway.planted"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
    try:
        with PlantedBed(tmp_path_factory.mktemp("planted"), providers=1, wallets=False) as it:
            yield it
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def test_every_answer_is_one_that_the_openapi_file_describes(tmp_path: Path):
    """Over a thousand requests, right and wrong ones, to every operation."""
    with make_bed(tmp_path) as bed:
        verdict = fuzz_all(bed, EXAMPLES, SEED)
    assert verdict.well, verdict.said
    assert verdict.cases >= LEAST_CASES, verdict.said


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        ("crash", "Server error"),
        ("hang", "Read timed out"),
        ("status", "Undocumented status code"),
        ("shape", "Response violates schema"),
        ("chunk", "SSE event violates schema"),
    ],
)
def test_a_planted_bug_is_found(planted: Bed, bug: str, told: str):
    """A gateway that errs where a request holds one certain field doesn't pass, and the fuzzer says how it errs."""
    key, _ = planted.ring.create(bug, planted.account, limits=Limits(0, 0, 0))
    verdict = fuzz(
        planted, "--include-path", "/v1/completions", "-H", f"X-Planted-Bug: {bug}", "--max-failures", "1",
        "--no-shrink", secret=key, examples=5, seed=SEED, silence_s=2 if bug == "hang" else SILENCE_S,
    )  # fmt: skip
    assert not verdict.well
    assert told in verdict.said
    assert planted.healthy()
