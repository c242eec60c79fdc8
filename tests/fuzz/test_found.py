"""What the fuzzers begin with and what they found: without atheris, so that it is tried on every machine."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import mutations
from tests.fuzz.run import TARGETS

FOUND = Path(__file__).parent / "found"


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[Any]:
    module = importlib.import_module(f"tests.fuzz.targets.{request.param}")
    yield module
    if hasattr(module, "close"):
        module.close()


def test_a_fuzzer_begins_with_what_is_understood(target: Any):
    """At least half of the seeds are taken: from noise alone it would never get past the first check."""
    seeds = target.seeds()
    assert sum(bool(target.once(it)) for it in seeds) * 2 >= len(seeds)


def test_what_a_fuzzer_found_is_cured(target: Any):
    """Inputs that once broke a promise, and noise, no longer do."""
    for path in (FOUND / target.__name__.rpartition(".")[2]).glob("*"):
        target.once(path.read_bytes())
    for noise in (b"", b"\0", b"\xff" * 300, bytes(range(256))):
        target.once(noise)


def test_messages_are_changed_as_values():
    """Most changes give another message that is MessagePack still; bytes that are none are left to libFuzzer."""
    frames = importlib.import_module("tests.fuzz.targets.frames")
    tried = [mutations.mutated(seed, at, lambda raw: raw) for at in range(40) for seed in frames.seeds()]
    taken = sum(frames.once(it) for it in tried)
    assert len(tried) // 10 < taken < len(tried)
    assert mutations.mutated(b"\xc1", 1, lambda raw: raw + b"!") == b"\xc1!"
