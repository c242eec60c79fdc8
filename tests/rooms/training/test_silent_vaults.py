"""How long a round waits for a vault that has an order and says nothing."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from clusterai.work.training.adapters.parties import Paid
from clusterai.work.training.core import patience
from clusterai.work.training.spec import Round
from tests.rooms.training.studies import Near, close_vaults
from tests.rooms.training.test_groups import grouped, trained


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


def test_before_a_quorum_has_answered_everyone_is_waited_for():
    """No sum can come of less, so nothing is gained by giving up."""
    assert patience.wait_s([1.0, 2.0], 3, 3600.0) == 3600.0


def test_a_silent_vault_is_waited_for_a_few_times_as_long_as_the_quorum_took():
    """Whatever the fastest took, and no longer than a round may take."""
    assert patience.wait_s([100.0, 1.0, 90.0], 3, 3600.0) == 400.0
    assert patience.wait_s([100.0, 1.0, 90.0, 101.0], 3, 3600.0) == 400.0
    assert patience.wait_s([2000.0] * 3, 3, 3600.0) == 3600.0


def test_a_third_that_answers_at_once_leaves_the_others_no_less_time():
    """Four of twelve say anything immediately, to have slow ones dropped: the quorum is there when honest ones have answered."""
    assert patience.wait_s([0.1] * 4 + [100.0, 101.0, 102.0, 103.0], 8, 3600.0) >= 4 * 100.0


def test_a_slow_vault_has_twice_as_long_as_it_ever_took_and_a_minute_at_least():
    """Short rounds differ by what else a machine does; and many rows take their time in every round."""
    assert patience.wait_s([0.5] * 3, 3, 3600.0) == 60.0
    assert patience.wait_s([30.0] * 3, 3, 3600.0, own_s=300.0) == 600.0


class Kept:
    """A vault that takes its orders over a link that lives, and keeps its answers back until all others have answered; or for ever."""

    def __init__(self, party: Near, others: list[Near], *, ever: bool) -> None:
        self._left, self._ever = 0, ever
        self._all = asyncio.Event()
        self._others = len(others)
        for it in others:
            it.order = self._counted(it.order)
        self._order, party.order = party.order, self._waits

    def _counted(self, order: Any) -> Any:
        async def answered(request: Round, most_wei: int | None) -> Paid:
            paid = await order(request, most_wei)
            self._left += 1
            if self._left == self._others:
                self._all.set()
            return paid

        return answered

    async def _waits(self, request: Round, most_wei: int | None) -> Paid:
        await self._all.wait()
        if self._ever:
            await asyncio.Event().wait()
        return await self._order(request, most_wei)


def test_a_vault_that_never_answers_holds_up_no_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It has dropped out, which the run says, and isn't paid; the others' sums are the model."""
    monkeypatch.setattr(patience, "LEAST_S", 1.0)
    parties = grouped(tmp_path, 4)
    Kept(parties[3], parties[:3], ever=True)
    told: list[dict[str, Any]] = []
    outcome = trained(parties, tmp_path / "run", 2, told)
    assert [sorted(it["dropped"]) for it in outcome.card["rounds"]] == [["v3"]] * 4, "trained and evaluated"
    assert all("no answer in" in it["dropped"]["v3"] for it in outcome.card["rounds"])
    assert [len(it["summed"]) for it in outcome.card["rounds"]] == [3] * 4
    assert parties[3].orders == 0


def test_a_vault_that_answers_last_is_in_the_sum(tmp_path: Path):
    """Nobody is dropped for being the slowest."""
    parties = grouped(tmp_path, 4)
    Kept(parties[3], parties[:3], ever=False)
    outcome = trained(parties, tmp_path / "run", 1, [])
    assert [len(it["summed"]) for it in outcome.card["rounds"]] == [4, 4]
