"""The exact solver: it agrees with trying all groups, and the heuristic is held to what it proves."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clusterai.market.adapters.exact import Solver, SolverGone
from clusterai.market.core.placement.choose import choose
from clusterai.market.core.placement.place import candidates, problem_of
from clusterai.market.core.placement.problem import Problem
from clusterai.market.core.placement.request import Need, Part, Request, single
from scripts import install
from tests.rooms.market.machines import NOW, index_of, world_offers


@pytest.fixture(scope="module")
def solver() -> Iterator[Solver]:
    python = install.peer(install.PEERS / "ortools.txt", install.HOME / "peers" / "ortools")
    assert python is not None, (
        "ortools isn't installed as scripts/peers/ortools.txt wants it: make install-peers"
    )
    with Solver(python, seconds=120.0) as it:
        yield it


def drawn(generator: np.random.Generator, parts: int) -> Problem:
    size = 10
    x = generator.uniform(0, 100, (size, 2))
    rtt = np.rint(np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))).astype(np.int64)
    price = generator.integers(0, 60, size)
    able = np.ones((parts, size), bool)
    if parts > 1:
        able[1] = generator.random(size) < 0.6
    return Problem(price, price + 1, rtt, generator.integers(0, 4, size), (2,) * parts, able, 1, 2, 80, 150)


@pytest.mark.parametrize("parts", [1, 2])
def test_it_proves_the_best_of_all_groups(solver: Solver, parts: int) -> None:
    """Against trying every group, with all kinds of limits, with and without a group to begin with."""
    generator = np.random.default_rng(parts)
    for _ in range(15):
        problem = drawn(generator, parts)
        every = (
            problem.group([list(first), list(second)] if parts == 2 else [list(first)])
            for first in itertools.combinations(range(10), 2)
            for second in (itertools.combinations(range(10), 2) if parts == 2 else [()])
        )
        best = min((it.cost for it in every if problem.permits(it)), default=None)
        for known in (None, choose(problem)):
            proof = solver.solve(problem, known)
            assert proof.proven
            assert (proof.group.cost if proof.group else None) == best


def test_the_heuristic_is_within_two_hundredths_of_the_optimum(solver: Solver) -> None:
    """Requests over a made-up world of 200, each proven; also a mixed one."""
    index = index_of(*world_offers(200, 11))
    requests = [
        Request(parts=single(nodes), most_per_operator=most, us_wei=worth)
        for nodes, most, worth in itertools.product((2, 5), (None, 1), (2_000, 200_000))
    ]
    requests.append(
        Request(
            parts=(Part(1, Need(cpu_milli=16_000)), Part(3, Need(gpu="h100"))),
            most_per_operator=2,
            us_wei=30_000,
        )
    )
    for request in requests:
        everyone = candidates(index, request, NOW)
        problem = problem_of(index, request, everyone, np.arange(len(everyone.rows)), None, NOW).problem
        group = choose(problem)
        assert group is not None
        proof = solver.solve(problem, group)
        assert proof.proven
        assert proof.group is not None
        assert group.cost <= 1.02 * proof.group.cost


def test_a_solver_that_is_not_there_says_so() -> None:
    """The heuristic's plan stands; the error names the Python that was tried."""
    problem = drawn(np.random.default_rng(3), 1)
    with (
        Solver(Path("/bin/true")) as gone,
        pytest.raises(SolverGone, match="/bin/true"),
    ):
        gone.solve(problem, None)
