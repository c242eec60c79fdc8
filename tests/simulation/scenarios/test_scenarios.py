"""A few seeds of every scenario; `python -m tests.simulation.run NAME --seeds N` runs more of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.play import play
from tests.simulation.scenarios.catalogue import SCENARIOS

SEEDS = {
    "all-faults": 40,
    "happy": 2,
    "cut-off": 1,
    "crowd": 2,
    "died-mid-stream": 4,
    "villain-DoubleSpender": 2,
}
FEW = 3


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_promise_holds(name: str) -> None:
    """Whatever goes wrong, the checkers find nothing, and once the faults end everything is finished."""
    for seed in range(SEEDS.get(name, FEW)):
        play(name, SCENARIOS[name], seed)


FOUND = [
    ("storm-SwapsWeights", 1021, "disputes of a slow link used up a gateway's credit for ever"),
    ("storm-SwapsWeights", 1022, "a crash between Save(Applied) and Submit(Reclaim) left a refund undone"),
    ("storm-SwapsWeights", 2013, "a near tie in a cheat's short right answer was its conviction's index"),
    ("only-compaction", 22, "an epoch of nothing but disputes was fixed in memory and not in the journal"),
    (
        "storm-HidesTranscript",
        3044,
        "a reorganisation put another challenger in the place of the one answered",
    ),
    ("all-faults", 193, "a transaction that a reorganisation delayed was overtaken by its sender's next"),
    ("all-faults", 32, "an honest provider that was cut off for the whole of a challenge"),
    ("all-faults", 206, "the checker took who is there after a reorganisation for who was there before it"),
]


@pytest.mark.parametrize(("name", "seed", "what"), FOUND)
def test_what_was_found_stays_found(name: str, seed: int, what: str) -> None:
    """Seeds that once broke a promise hold it now."""
    play(name, SCENARIOS[name], seed)


def test_work_is_really_done_and_faults_really_strike() -> None:
    """A campaign without crashes, failovers, reorganisations and refusals would prove nothing."""
    crashes = undone = failed_over = lost = charged = whole = partly = borne = 0
    for seed in range(12):
        world, checkers = play("all-faults", SCENARIOS["all-faults"], seed)
        crashes += world.simulation.crashes
        undone += world.chain.undone
        lost += world.simulation.network.lost
        failed_over += checkers.answers.failed_over
        charged += len(checkers.charges.charged)
        whole += checkers.bills.whole
        partly += checkers.bills.partly
        borne += len(checkers.bills.borne)
    assert crashes > 30
    assert undone > 3
    assert lost > 500
    assert failed_over > 20
    assert charged > 300
    assert whole > 50
    assert partly > 3
    assert borne > 10


def test_a_died_provider_hands_over_the_very_same_tokens() -> None:
    """Killed in mid-stream, it is charged once, by the one who ended the answer."""
    failed_over = 0
    for seed in range(4):
        _, checkers = play("died-mid-stream", SCENARIOS["died-mid-stream"], seed)
        failed_over += checkers.answers.failed_over
    assert failed_over > 4


def test_equal_seeds_give_equal_digests_under_two_hash_seeds() -> None:
    """A run is a function of its seed, and of nothing else in the process."""
    root = Path(__file__).parents[3]
    program = (
        "from tests.simulation.play import play\n"
        "from tests.simulation.scenarios.catalogue import SCENARIOS\n"
        "for name, seed in (('all-faults', 5), ('storm-ReplaysReceipt', 6), ('villain-FalseAccuser', 7)):\n"
        "    print(play(name, SCENARIOS[name], seed)[0].simulation.digest())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{root / 'src'}:{root}"},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].split())) == 3
