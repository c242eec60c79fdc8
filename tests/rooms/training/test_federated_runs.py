"""Whole runs of the example app: real processes of Flower behind the sandbox's walls, vaults in this process."""

import asyncio
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from clusterai.work.training.adapters.campaign import Campaign, CannotTrain, Outcome, Wish
from tests.rooms.training.studies import APP, ME, USE_WEI, Near, accuracy, close_vaults, vaults


def trained(
    parties: list[Near], wish: Wish, folder: Path, told: list[dict[str, Any]] | None = None
) -> Outcome:
    events: list[dict[str, Any]] = [] if told is None else told
    return asyncio.run(Campaign(APP, parties, ME.key, wish, folder, events.append).train())


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


class BrokenOff(Exception):
    """The requester's machine went away."""


def rounds(count: int, **more: Any) -> Wish:
    return Wish(rounds=count, config={"num-server-rounds": count}, **more)


def test_three_vaults_train_an_unmodified_app_by_secure_aggregation(tmp_path: Path):
    """The model is good, and its card names every vault and round."""
    parties = vaults(tmp_path)
    told: list[dict[str, Any]] = []
    outcome = trained(parties, rounds(2), tmp_path / "run", told)
    assert outcome.model is not None
    assert accuracy(outcome.model) >= 0.80
    card = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert card["sums"] == "secure aggregation"
    assert len(card["sources"]) == 3
    assert [told["type"] for told in card["rounds"]] == ["train", "evaluate"] * 2
    assert all(len(told["summed"]) == 3 and told["transcript"] for told in card["rounds"])
    assert card["charged_wei"] == outcome.charged_wei == 4 * 3 * USE_WEI
    assert [event["event"] for event in told].count("summed") == 4


@pytest.mark.parametrize("phase", ["order", "Neighbours", "Roll"])
def test_a_third_of_the_vaults_may_be_lost_in_any_phase(tmp_path: Path, phase: str):
    """The round goes on with the others, and the card says who dropped out."""
    parties = vaults(tmp_path)
    parties[1].dead_at = phase
    outcome = trained(parties, rounds(1), tmp_path / "run")
    assert outcome.model is not None
    assert accuracy(outcome.model) >= 0.75
    assert all("vault-1" in told["dropped"] for told in outcome.card["rounds"])


def test_a_run_with_two_of_three_vaults_lost_ends_with_their_reasons(tmp_path: Path):
    """It isn't asked for ever, and no sum over one vault is made."""
    parties = vaults(tmp_path, most_rows=100)
    parties[0].dead_at = parties[1].dead_at = "order"
    with pytest.raises(CannotTrain, match="the vault is gone"):
        trained(parties, rounds(1), tmp_path / "run")


def test_a_run_that_broke_off_goes_on_where_it_was(tmp_path: Path):
    """What was answered isn't asked again, the round under way is the same, and the card tells of all rounds."""
    parties = vaults(tmp_path)
    folder = tmp_path / "run"

    def broke(event: dict[str, Any]) -> None:
        if event["event"] == "summed" and event["number"] == 2:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        asyncio.run(Campaign(APP, parties, ME.key, rounds(2), folder, broke).train())
    before = parties[0].orders
    outcome = trained(parties, rounds(2), folder)
    # Two rounds' answers were kept; the third is ordered again by the same name, and the fourth.
    assert parties[0].orders - before == 2
    assert len(parties[0].vault.uses()) == 4
    assert outcome.model is not None
    assert accuracy(outcome.model) >= 0.85
    assert [told["number"] for told in outcome.card["rounds"]] == [0, 1, 2, 3]


def test_another_run_isnt_given_the_olds_model(tmp_path: Path):
    """Where a run lies, other settings are refused by their names; the same command gives the same model."""
    parties = vaults(tmp_path, most_rows=100)
    first = trained(parties, rounds(1), tmp_path / "run")
    for wish, named in (
        (rounds(2), "rounds"),
        (rounds(1, norm=7.0), "norm"),
        (rounds(1, epsilon=4.0, blocks=2), "blocks"),
    ):
        with pytest.raises(CannotTrain, match=f"other settings.*{named}.*--out"):
            trained(parties, wish, tmp_path / "run")
    assert trained(parties, rounds(1), tmp_path / "run").model == first.model


def test_with_epsilon_the_budget_is_spent_and_no_metric_leaves(tmp_path: Path):
    """Each vault has spent what the card says, and not more than was asked."""
    parties = vaults(tmp_path, epsilon_micro=4_000_000, most_rows=400)
    told: list[dict[str, Any]] = []
    outcome = trained(parties, rounds(1, epsilon=4.0, blocks=2), tmp_path / "run", told)
    assert 3.5 < outcome.epsilon <= 4.0
    for party in parties:
        assert party.spent_micro() == round(outcome.epsilon * 1_000_000)
    assert [told["type"] for told in outcome.card["rounds"]] == ["train"]
    assert next(event for event in told if event["event"] == "summed")["metrics"] == {}
    assert next(event for event in told if event["event"] == "withheld")["type"] == "evaluate"


def test_a_spent_budget_ends_the_run(tmp_path: Path):
    """A second run under the same grant is refused by the vaults, and says what is left."""
    parties = vaults(tmp_path, epsilon_micro=1_000_000, most_rows=100)
    with pytest.raises(CannotTrain, match="budget"):
        trained(parties, rounds(1, epsilon=4.0), tmp_path / "run")
    assert all(party.spent_micro() == 0 for party in parties)


def test_a_grant_with_epsilon_is_none_for_training_without(tmp_path: Path):
    """Otherwise a grant for little ε would be one for the bare sums."""
    parties = vaults(tmp_path, epsilon_micro=1_000_000, most_rows=100)
    with pytest.raises(CannotTrain, match="has no noise"):
        trained(parties, rounds(1), tmp_path / "run")
