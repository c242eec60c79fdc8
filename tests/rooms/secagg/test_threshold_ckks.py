"""Threshold CKKS beside our process: each share in a process of its own, and no sum with one missing."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterai.vault.adapters.thresholdckks import (
    CannotOpen,
    CkksParty,
    NoOpenFhe,
    joint_key,
    opened,
    openfhe_python,
)

STANDIN = Path(__file__).with_name("standin")


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PYTHONPATH", str(STANDIN))
    return openfhe_python(sys.executable)


async def summed(
    python: str, count: int, length: int, openers: Sequence[int] | None = None
) -> tuple[Any, Any]:
    values = np.random.default_rng(4).normal(size=(count, length))
    async with contextlib.AsyncExitStack() as stack:
        parties = [await stack.enter_async_context(CkksParty(python)) for _ in range(count)]
        key = await joint_key(parties)
        encrypted = [await party.encrypt(key, row) for party, row in zip(parties, values, strict=True)]
        total = await parties[0].add(encrypted)
        with pytest.raises(CannotOpen, match="different lengths"):
            await parties[0].add([encrypted[0], encrypted[1][:-1]])
        if openers is None:
            return await opened(parties, total, length), values.sum(axis=0)
        shares = [await parties[i].open(total, lead=i == 0) for i in openers]
        return await parties[0].fuse(shares, length), values.sum(axis=0)


def test_all_parties_open_the_sum(python: str):
    """Four processes, several blocks of values: the sum, as far as doubles go."""
    got, true = asyncio.run(summed(python, 4, 21))
    assert np.abs(got - true).max() < 1e-10


@pytest.mark.parametrize("openers", [(0, 1, 2), (0, 1, 3), (1, 2, 3)])
def test_with_one_share_missing_nothing_decrypts(python: str, openers: tuple[int, ...]):
    """Whoever is missing, the lead included: an error that says what to do, and no numbers."""
    with pytest.raises(CannotOpen, match="make a new key without those who left"):
        asyncio.run(summed(python, 4, 9, openers))


def test_a_party_that_dies_is_an_error_and_no_hang(python: str):
    """Its process is gone: whoever waits is told."""

    async def die() -> None:
        async with CkksParty(python) as party:
            await party.join()
            process = party._process  # pyright: ignore[reportPrivateUsage]
            assert process is not None
            process.kill()
            await process.wait()
            with pytest.raises((CannotOpen, ConnectionError, asyncio.IncompleteReadError)):
                await party.join()

    asyncio.run(die())


def test_without_openfhe_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No Python on PATH has it: which were tried, and how to make one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoOpenFhe, match="pip install openfhe=="):
        openfhe_python()
    with pytest.raises(NoOpenFhe, match="nowhere/python"):
        openfhe_python(str(tmp_path / "nowhere" / "python"))
