"""Vaults and requesters that die in the middle of a round, as objects: what is durable is what counts.

By default in few phases, with `CLUSTERAI_EVERY=1` in all. Between real processes: tests/system/test_broken_rounds.py.
"""

import asyncio
import json
import os
import traceback
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from clusterai.protocol.signing import Key
from clusterai.vault.adapters.hosting import open_vault
from clusterai.work.training.adapters.campaign import Campaign, CannotTrain, Outcome, Wish
from clusterai.work.training.adapters.checkpoint import Checkpoint, InUse
from clusterai.work.training.adapters.hosting import Training
from clusterai.work.training.adapters.parties import Paid
from clusterai.work.training.adapters.studio import Performed
from clusterai.work.training.spec import Round
from tests.rooms.training.studies import APP, ME, NETWORK, POLICY, Near, close_vaults, studio, vaults

Said = TypeVar("Said")

EPSILON_MICRO = 8_000_000
EVERY = bool(os.environ.get("CLUSTERAI_EVERY"))
VAULT_PHASES = ("answer", "Neighbours", *(("Put", "Invite", "Boxes", "Roll", "Endorsed") if EVERY else ()))
REQUESTER_PHASES = (
    "Boxes",
    *(("Put", "Invite", "Neighbours", "Roll", "Endorsed", "Published") if EVERY else ()),
)


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


class Mortal(Near):
    """A vault whose process dies when a call of some phase comes, or with its answer to an order; and is started anew at once."""

    dies_at = ""
    reborn = 0

    def die(self) -> None:
        self.dies_at = ""
        self.reborn += 1
        key: Key = self.vault.key
        self.vault.close()
        self.vault = open_vault(self.vault.folder.root, self.vault.owner, key, NETWORK)
        self.service = Training(self.vault, studio)

    async def call(self, data: bytes) -> bytes:
        if self.dies_at and self.dies_at.encode() in data[:4096]:
            self.die()
        return await self._while_it_lives(super().call(data))

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        paid = await self._while_it_lives(super().order(request, most_wei))
        if self.dies_at == "answer":
            self.die()
            raise ConnectionError("the link ended")
        return paid

    async def _while_it_lives(self, said: Awaitable[Said]) -> Said:
        """Nothing that a dead process would have said is heard."""
        life = self.reborn
        try:
            return await said
        finally:
            if self.reborn != life:
                raise ConnectionError("the link ended")


def mortals(folder: Path, epsilon_micro: int = 0) -> list[Mortal]:
    return [
        Mortal(folder / f"vault-{at}", f"vault-{at}", slice(at, 60, 3), epsilon_micro=epsilon_micro)
        for at in range(3)
    ]


def wish(count: int, **more: Any) -> Wish:
    return Wish(rounds=count, config={"num-server-rounds": count}, **more)


@pytest.mark.parametrize("phase", VAULT_PHASES)
def test_a_vault_that_dies_in_any_phase_is_in_the_next_round_and_spends_no_epsilon_twice(
    tmp_path: Path, phase: str
):
    """It is told of the run again and knows what it has spent; only from a sum that had begun it has dropped out."""
    parties = mortals(tmp_path, EPSILON_MICRO)
    parties[1].dies_at = phase
    outcome = asyncio.run(Campaign(APP, parties, ME.key, wish(2, epsilon=4.0), tmp_path / "run").train())
    assert parties[1].reborn == 1
    assert [len(it["parts"]) for it in outcome.card["rounds"]] == [3, 3]
    began = phase in ("Neighbours", "Boxes")
    assert [len(it["summed"]) for it in outcome.card["rounds"]] == [3 - began, 3]
    assert {party.spent_micro() for party in parties} == {round(outcome.epsilon * 1_000_000)}
    assert outcome.epsilon <= 4.0
    assert [len(party.vault.uses()) for party in parties] == [2, 2, 2]
    assert parties[1].vault.shelf("training").names() == []


@pytest.mark.parametrize("phase", ["Neighbours", *(("Boxes", "Roll") if EVERY else ()), "Endorsed"])
def test_a_sum_that_two_of_three_vaults_died_in_is_begun_again_and_costs_nothing_more(
    tmp_path: Path, phase: str
):
    """Of the same vectors with the same noise, over the same members: also where these had endorsed the first."""
    parties = mortals(tmp_path, EPSILON_MICRO)
    parties[0].dies_at = parties[1].dies_at = phase
    told: list[dict[str, Any]] = []
    outcome = asyncio.run(
        Campaign(APP, parties, ME.key, wish(1, epsilon=4.0), tmp_path / "run", told.append).train()
    )
    assert [it["event"] for it in told if it["event"] in ("summing again", "failed")] == ["summing again"]
    assert [it["number"] for it in outcome.card["rounds"]] == [0]
    assert len(outcome.card["rounds"][0]["summed"]) == 3
    assert outcome.card["failed_parts"] == 0
    assert {party.spent_micro() for party in parties} == {round(outcome.epsilon * 1_000_000)}
    assert [len(party.vault.uses()) for party in parties] == [1, 1, 1]


class Leaving(Mortal):
    """Killed when everybody has endorsed, and never in a sum again."""

    def die(self) -> None:
        super().die()
        self.dead_at = "Invite"


def test_a_round_whose_members_were_endorsed_has_no_sum_over_others(tmp_path: Path):
    """The second sum could be subtracted from the first: that round is lost with its ε, and another one is ordered."""
    one, other = mortals(tmp_path, EPSILON_MICRO)[:2]
    away = Leaving(tmp_path / "away", "away", slice(2, 60, 3), epsilon_micro=EPSILON_MICRO)
    parties = [one, other, away]
    other.dies_at = away.dies_at = "Endorsed"
    told: list[dict[str, Any]] = []
    outcome = asyncio.run(
        Campaign(APP, parties, ME.key, wish(1, epsilon=4.0), tmp_path / "run", told.append).train()
    )
    assert [it["number"] for it in told if it["event"] == "failed"] == [0]
    assert [it["number"] for it in outcome.card["rounds"]] == [1]
    assert len(outcome.card["rounds"][0]["summed"]) == 2
    assert outcome.card["failed_parts"] == 3
    assert [len(party.vault.uses()) for party in parties] == [2, 2, 2]
    assert {party.spent_micro() for party in parties} == {round(outcome.epsilon * 1_000_000)}


class Waiting:
    """A studio that computes on its first message until it is interrupted."""

    def __init__(self) -> None:
        self.computes, self._studio = asyncio.Event(), studio()

    async def perform(self, *about: Any) -> Performed:
        if not self.computes.is_set():
            self.computes.set()
            await asyncio.Event().wait()
        return await self._studio.perform(*about)


class Severed(Near):
    """A vault whose gateway dies while it computes on its first order: what it computes is stopped, as a node stops it."""

    def compute(self) -> None:
        self.waiting = Waiting()
        self.service = Training(self.vault, lambda: cast("Any", self.waiting))

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        if self.waiting.computes.is_set():
            return await super().order(request, most_wei)
        stream = self.service.submit(request)
        await self.waiting.computes.wait()
        stream.cancel()
        raise ConnectionError("the gateway is gone")


def test_a_gateway_that_dies_while_all_vaults_compute_costs_nothing(tmp_path: Path):
    """The same orders are brought again by the next one, done anew, and spend no ε twice."""
    parties = [
        Severed(tmp_path / f"vault-{at}", f"vault-{at}", slice(at, 60, 3), epsilon_micro=EPSILON_MICRO)
        for at in range(3)
    ]
    for party in parties:
        party.compute()
    told: list[dict[str, Any]] = []
    outcome = asyncio.run(
        Campaign(APP, parties, ME.key, wish(1, epsilon=4.0), tmp_path / "run", told.append).train()
    )
    assert sorted(it["vault"] for it in told if it["event"] == "again") == [it.name for it in parties]
    assert [it["number"] for it in outcome.card["rounds"]] == [0]
    assert len(outcome.card["rounds"][0]["summed"]) == 3
    assert {party.spent_micro() for party in parties} == {round(outcome.epsilon * 1_000_000)}


class Faulty(Near):
    """The way to it has a fault of ours."""

    fault_at = ""

    async def call(self, data: bytes) -> bytes:
        if self.fault_at and self.fault_at.encode() in data[:4096]:
            raise KeyError("a fault of ours")
        return await super().call(data)

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        if self.fault_at == "order":
            raise OSError(28, "a fault of ours: no space left")
        return await super().order(request, most_wei)


@pytest.mark.parametrize("at", ["Hello", "Begin", "Put", "order", "Boxes", "End"])
def test_a_fault_of_ours_is_no_drop_out(tmp_path: Path, at: str):
    """It ends the run with its traceback, in whatever phase: taken for a vault that is gone it would cost ε and be heard of by nobody."""
    parties = [Faulty(tmp_path / f"vault-{it}", f"vault-{it}", slice(it, 60, 3)) for it in range(3)]
    parties[2].fault_at = at
    with pytest.raises((KeyError, OSError, ExceptionGroup)) as caught:
        asyncio.run(Campaign(APP, parties, ME.key, wish(1), tmp_path / "run").train())
    assert "a fault of ours" in "".join(traceback.format_exception(caught.value))


class Gone(BaseException):
    """The requester's machine went away."""


class Watched(Mortal):
    """The requester dies when it asks this vault for some phase."""

    stops_at = ""

    async def call(self, data: bytes) -> bytes:
        if self.stops_at and self.stops_at.encode() in data[:4096]:
            self.stops_at = ""
            raise Gone
        return await super().call(data)


@pytest.mark.parametrize("phase", REQUESTER_PHASES)
def test_a_requester_that_dies_in_any_phase_goes_on_in_the_same_round(tmp_path: Path, phase: str):
    """The same command: the round keeps its number, the sum its members, and each vault spends what an unbroken run does."""
    parties = [
        Watched(tmp_path / f"vault-{at}", f"vault-{at}", slice(at, 60, 3), epsilon_micro=EPSILON_MICRO)
        for at in range(3)
    ]
    parties[2].stops_at = phase
    asked = wish(1, epsilon=4.0)

    async def main() -> Outcome:
        with pytest.raises((Gone, BaseExceptionGroup)):
            await Campaign(APP, parties, ME.key, asked, tmp_path / "run").train()
        return await Campaign(APP, parties, ME.key, asked, tmp_path / "run").train()

    outcome = asyncio.run(main())
    assert [it["number"] for it in outcome.card["rounds"]] == [0]
    assert len(outcome.card["rounds"][0]["summed"]) == 3
    assert [len(party.vault.uses()) for party in parties] == [1, 1, 1]
    assert {party.spent_micro() for party in parties} == {round(outcome.epsilon * 1_000_000)}
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not left & {"underway.json", "sum.sqlite"}


def test_a_run_goes_on_though_one_of_its_vaults_stays_away(tmp_path: Path):
    """Its place in the run is kept; the others make the sum."""
    parties = vaults(tmp_path, most_rows=60)

    def broke(event: dict[str, Any]) -> None:
        if event["event"] == "summed":
            raise Gone

    async def main() -> Outcome:
        with pytest.raises(Gone):
            await Campaign(APP, parties, ME.key, wish(1), tmp_path / "run", broke).train()
        parties[1].dead_at = "Hello"
        return await Campaign(APP, parties, ME.key, wish(1), tmp_path / "run").train()

    outcome = asyncio.run(main())
    assert outcome.rounds == 2
    assert {it["name"] for it in outcome.card["sources"]} == {"vault-0", "vault-1", "vault-2"}


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path):
    """The second would tell vaults other words under the same numbers."""
    first = Checkpoint(tmp_path / "run")
    first.hold()
    try:
        with pytest.raises(InUse, match="another process"):
            asyncio.run(
                Campaign(APP, vaults(tmp_path, most_rows=30), ME.key, wish(1), tmp_path / "run").train()
            )
    finally:
        first.close()


def test_orders_that_are_refused_make_no_later_one_cheaper(tmp_path: Path):
    """A round's ε follows from how many spent before it: a villain who orders with no ε at all, a hundred times, has spent nothing."""
    parties = vaults(tmp_path, epsilon_micro=POLICY.grant_epsilon_micro, most_rows=60)

    class Miser(Campaign):
        def _most_micro(self, content: Any) -> int:
            self.asked = getattr(self, "asked", 0) + 1
            return 0 if self.asked < 3 else super()._most_micro(content)

    async def main() -> None:
        asked = wish(1, epsilon=2.0, norm=1.0)
        sparing = await Miser(APP, parties, ME.key, asked, tmp_path / "miser").train()
        assert [it["number"] for it in sparing.card["rounds"]] == [2]
        before = parties[0].spent_micro()
        honest = await Campaign(APP, parties, ME.key, asked, tmp_path / "honest").train()
        assert before == parties[0].spent_micro() - before == round(honest.epsilon * 1_000_000)

    asyncio.run(main())
    assert json.loads((tmp_path / "miser" / "run.json").read_text())["number"] == 3


def test_a_round_without_sum_twice_over_ends_with_its_cost_told(tmp_path: Path):
    """What failed was done and paid all the same: it counts in the price that the card tells."""
    parties = vaults(tmp_path, most_rows=60)
    parties[0].dead_at = parties[1].dead_at = "Invite"
    folder = tmp_path / "run"
    with pytest.raises(CannotTrain, match="must"):
        asyncio.run(Campaign(APP, parties, ME.key, wish(1), folder).train())
    assert len(json.loads((folder / "run.json").read_text())["wasted"]) == 9
