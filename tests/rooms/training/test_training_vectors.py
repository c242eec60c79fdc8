"""Replies as vectors and sums as replies: exact for what looks at the mean, bounded for who lies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.work.training.core import replying, strategies, vector
from clusterai.work.training.inside.records import Records

NORM = 10.0


def message(values: list[float]) -> Records:
    return {"arrays": ("arrays", {"w": np.array(values)}), "config": ("config", {"server-round": 1})}


def reply(values: list[float], examples: float, **metrics: float) -> Records:
    return {
        "arrays": ("arrays", {"w": np.array(values)}),
        "metrics": ("metrics", {"num-examples": examples, **metrics}),
    }


def given_by(sent: Records, answer: Records, most_weight: int = 1000) -> vector.Contribution:
    return vector.contribution(sent, answer, norm=NORM, weight_key="num-examples", most_weight=most_weight)


def mean(sent: Records, contributions: list[vector.Contribution], clip: float = 0.0) -> vector.Mean:
    found = vector.mean_of(
        sent,
        np.sum([it.vector for it in contributions], axis=0),
        step=NORM / vector.LEVELS,
        training=True,
        metrics=contributions[0].metrics,
        clip=clip,
    )
    assert found is not None
    return found


@given(
    st.lists(
        st.tuples(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.integers(1, 1000), st.floats(0, 5)),
        min_size=1,
        max_size=8,
    )
)
def test_the_sum_is_the_weighted_mean(clients: list[tuple[list[float], int, float]]):
    """To within a step of the grid; the strategy that averages the replies gets it back."""
    sent = message([0.5, -0.5, 0.0])
    found = mean(sent, [given_by(sent, reply(w, n, loss=loss)) for w, n, loss in clients])
    weights = np.array([n for _, n, _ in clients])
    wanted = np.average([w for w, _, _ in clients], axis=0, weights=weights)
    assert found.arrays is not None
    assert np.allclose(found.arrays[1]["w"], wanted, atol=NORM / vector.LEVELS)
    again = replying.reply_of(found, sent, "num-examples", len(clients))
    assert again["metrics"][1]["num-examples"] == pytest.approx(weights.sum() / len(clients))
    losses = [loss for _, _, loss in clients]
    assert again["metrics"][1]["loss"] == pytest.approx(np.average(losses, weights=weights), abs=1e-5)


def test_no_update_is_longer_than_the_bound_and_no_weight_larger_than_the_rows():
    """A program that answers with a million is cut to the norm, at the vault."""
    sent = message([0.0, 0.0, 0.0])
    made = given_by(sent, reply([1e6, 0.0, 0.0], 1e9), most_weight=50)
    assert made.clipped
    assert made.vector[0] == 50 * vector.LEVELS
    assert made.vector[3] == 50


def test_a_vault_that_exceeds_the_norm_behind_the_mask_moves_the_mean_by_the_bound_at_most():
    """A sum can't say whose fault it is; it can say that a mean so long can't be."""
    sent = message([0.0, 0.0, 0.0])
    honest = [given_by(sent, reply([0.1, 0.0, 0.0], 10)) for _ in range(2)]
    liar = vector.Contribution(honest[0].vector * 1, (), False)
    liar.vector[1] = 2**50
    found = mean(sent, [*honest, liar], clip=NORM)
    assert found.length == pytest.approx(NORM)


@pytest.mark.parametrize(
    "answer",
    [
        reply([1.0, 2.0], 1),
        reply([float("nan"), 0.0, 0.0], 1),
        {"a": ("arrays", {"v": np.zeros(3)}), "metrics": ("metrics", {"num-examples": 1})},
        {**reply([0.0, 0.0, 0.0], 1), "more": ("arrays", {"w": np.zeros(3)})},
        reply([0.0, 0.0, 0.0], float("inf")),
        reply([0.0, 0.0, 0.0], 1, **{f"m{at}": 1.0 for at in range(65)}),
    ],
)
def test_replies_that_cannot_be_summed_are_refused(answer: Records):
    """Other names, other shapes, numbers that are none."""
    with pytest.raises(vector.Unusable):
        given_by(message([0.0, 0.0, 0.0]), answer)


def test_a_block_that_fails_counts_as_one_that_changed_nothing():
    """That it failed may be what its rows are."""
    sent = message([0.0, 0.0, 0.0])
    made = vector.blocked(
        sent,
        [reply([3.0, 0.0, 0.0], 9), None, reply([float("nan")] * 3, 1)],
        norm=NORM,
        step=0.001,
        noise=np.array([5, 0, 0]),
    )
    assert list(made.vector) == [3005, 0, 0, 3]
    assert made.metrics == ()


def test_strategies_that_compare_clients_are_refused_by_name():
    """Over sums they would do something else than their name says."""
    assert strategies.objection(["flwr.FedAvg", "flwr.Strategy"]) is None
    assert strategies.objection(["mine.Saving*", "flwr.FedAdam", "flwr.FedOpt"]) is None
    assert "Saving" in strategies.notice(["mine.Saving*", "flwr.FedAdam"])
    for name in ("Krum", "FedMedian", "QFedAvg", "DifferentialPrivacyServerSideFixedClipping"):
        assert name in (strategies.objection([f"flwr.{name}", "flwr.FedAvg"]) or "")
    assert strategies.objection(["flwr.FedMedian", "flwr.FedAvg"], groups=3) is None
    assert "mine.Own" in (strategies.objection(["mine.Own*"]) or "")
