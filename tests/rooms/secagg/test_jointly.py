"""A question to several vaults at once: permitted, charged, noised, masked, summed."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clusterai.protocol.ids import Address, Digest
from clusterai.vault.adapters.aggregation import NoSum
from clusterai.vault.adapters.jointly import Ask, JointDesk, Statistic, joint_statistic
from clusterai.vault.core.schema import Column, Schema
from clusterai.vault.core.secagg.joint import Moments, MomentsFound, Range
from clusterai.vault.core.terms import Denied
from tests.rooms.secagg.played import SERVER, keys

AGE = Range("age", 0, 100_000_000)
NOW_S = 1000.0


class Budgeted:
    """A vault with rows, one grant and a budget."""

    def __init__(self, rows: Any, granted_micro: int, left_micro: int) -> None:
        self.rows, self.granted, self.left = rows, granted_micro, left_micro
        self.spent: dict[bytes, int] = {}
        self.closed: list[bytes] = []
        self.schema = Schema(
            columns=(
                Column(name="age", kind="int", low=0, high=100),
                Column(name="who", kind="int", low=0, high=10**6),
            ),
            unit="who",
        )

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest) -> Any:
        if grant != b"\x09" * 32 or signer != SERVER.address or operation != 6:
            raise Denied("unknown", "no such grant")
        return SimpleNamespace(epsilon_micro=self.granted)

    def spend(self, grant: Digest, order: Digest, epsilon_micro: int, delta_pico: int = 0) -> Any:
        if order not in self.spent:
            if epsilon_micro > self.left:
                raise Denied("budget", f"{self.left} micro-epsilon are left")
            self.left -= epsilon_micro
            self.spent[order] = epsilon_micro

    def used(self, order: Digest, result: Digest) -> Any:
        assert order in self.spent
        self.closed.append(order)

    def columns(self, names: Sequence[str]) -> Mapping[str, Any]:
        return {name: {"age": self.rows, "who": np.arange(len(self.rows))}[name] for name in names}


class Study:
    def __init__(self, count: int = 5, granted_micro: int = 2_000_000, rows: int = 4000) -> None:
        self.keys = keys(count)
        draw = np.random.default_rng(8)
        self.vaults = {
            who: Budgeted(draw.uniform(20, 80, rows), granted_micro, granted_micro) for who in self.keys
        }
        self.desks = {
            who: JointDesk(vault, self.keys[who], clock=lambda: NOW_S) for who, vault in self.vaults.items()
        }

    async def send(self, to: Address, body: bytes) -> bytes:
        return await self.desks[to].answer(SERVER.address, body)

    def ask(
        self, epsilon_micro: int, question: Any = None, nonce: int = 0, grant: bytes = b"\x09" * 32
    ) -> Statistic:
        asked = Ask(grant, question or Moments((AGE,)), epsilon_micro, 1000 if epsilon_micro else 0)
        asks = dict.fromkeys(self.keys, asked)
        return asyncio.run(
            joint_statistic(
                SERVER, self.send, asks, nonce=bytes([nonce]) * 32, beacon=bytes(32), expires_s=5000,
                phase_s=20, clock=lambda: NOW_S,
            )
        )  # fmt: skip

    def pooled(self) -> Any:
        return np.concatenate([vault.rows for vault in self.vaults.values()])


def moments(statistic: Statistic) -> MomentsFound:
    assert isinstance(statistic.found, MomentsFound)
    return statistic.found


def test_a_noised_mean_is_near_the_true_one_and_every_vault_was_charged_once():
    """Five vaults, epsilon 1: the mean of 20,000 rows within a hundredth, one use each in their logs."""
    study = Study()
    answer = moments(study.ask(1_000_000))
    assert answer.rows != 20_000
    assert abs(answer.rows - 20_000) < 200
    assert abs(answer.columns[0].mean - study.pooled().mean()) < 1.0
    assert all(vault.left == 1_000_000 and len(vault.closed) == 1 for vault in study.vaults.values())


def test_without_noise_only_where_the_owner_granted_that():
    """Exact sums need a grant without epsilon; another grant's owner refuses them."""
    exact = Study(granted_micro=0)
    assert moments(exact.ask(0)).columns[0].mean == pytest.approx(exact.pooled().mean(), abs=1e-4)
    with pytest.raises(NoSum, match="0 of 5 vaults are ready"):
        Study().ask(0)


def test_a_spent_budget_drops_its_vault_out():
    """Each round is charged anew; whose budget is spent takes no part, and says so."""
    study = Study()
    first = next(iter(study.vaults))
    study.vaults[first].left = 1_500_000
    study.ask(1_000_000)
    second = study.ask(1_000_000, nonce=1)
    assert second.refused[first].startswith("budget")
    assert len(second.vaults) == 4
    with pytest.raises(NoSum):
        study.ask(1_000_000, nonce=2)


def test_unknown_grants_columns_and_questions_are_refused():
    """Nothing is charged for them."""
    study = Study()
    with pytest.raises(NoSum, match="0 of 5"):
        study.ask(1_000_000, grant=b"\x01" * 32)
    with pytest.raises(NoSum) as failure:
        study.ask(1_000_000, Moments((Range("secret", 0, 10),)))
    assert all(why.startswith("columns") for why in failure.value.failed.gone.values())
    with pytest.raises(NoSum, match="0 of 5"):
        study.ask(1_000_000, Moments((Range("age", 10, 10),)))
    assert all(vault.left == 2_000_000 for vault in study.vaults.values())
