"""The best group, proven: CP-SAT in a process of its own, warm-started from what the heuristic found.

For mixed groups, for plans worth a second, and for measuring the heuristic. OR-tools needs a protobuf that contradicts that of
our telemetry, so it lives in an environment of its own (`scripts/peers/ortools.txt`) and answers on a pipe: one line of JSON
each way. Where it isn't installed, the heuristic's group stands, unproven.

Before anything is sent the problem is cut down by what the known group proves. U is its cost, L the least burdens that fill all
parts, L_i those beside candidate i:

    i is out if                      burden_i + L_i > U         no group with it is better
    i and j exclude each other if    rtt_ij x us_wei + L > U    nor one with both
    i is out if it is with the cheapest k - 1 of those that it doesn't exclude, at the distance of its (k - 1)th neighbour

which leaves a few dozen of a thousand candidates, mostly.
"""

import json
import subprocess
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from clusterai.market.core.placement.problem import FAR_US, Group, Ints, Problem

WORKER = Path(__file__).parent / "cpsat_worker.py"
MOST_LINE = 64 * 1024 * 1024
NOBODY = 2**50
"""Burden of a neighbour who isn't there."""


class Proof(msgspec.Struct, frozen=True):
    """What the solver says: no group costs less than `bound`; `proven` if `group` costs just that, or none exists."""

    group: Group | None
    bound: int
    proven: bool
    candidates: int
    """that were left after cutting down"""
    wall_s: float


class SolverGone(RuntimeError):
    """The exact solver ended: {why}. The heuristic's plan stands; see whether {python} has ortools."""

    def __init__(self, why: str, python: Path) -> None:
        super().__init__(
            f"the exact solver ended: {why}. The heuristic's plan stands; see whether {python} has ortools"
        )


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: str
    bound: float
    seats: list[list[int]]
    wall_s: float


class Solver:
    """A solver process; use it as a context. Not for several threads at once."""

    def __init__(self, python: Path, seconds: float = 10.0, seed: int = 1) -> None:
        """
        Args:
            seconds: for one problem at most. The same problem has the same answer only if it ends before.
        """
        self._python, self._seconds, self._seed = python, seconds, seed
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Solver":
        self._process = subprocess.Popen(
            [str(self._python), "-I", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def solve(self, problem: Problem, known: Group | None) -> Proof:
        """The best group of all, or the best that `seconds` found and what is proven of the rest.

        Args:
            known: a permitted group: where the search begins, and what cuts the problem down.
        """
        rows = _left(problem, known)
        if len(rows) < problem.nodes:
            return Proof(known, known.cost if known else 0, proven=True, candidates=len(rows), wall_s=0.0)
        answer = self._ask(_question(problem, known, rows, self._seconds, self._seed))
        group = known
        if answer.seats:
            found = problem.group([[int(rows[at]) for at in part] for part in answer.seats])
            assert problem.permits(found), "the solver was asked something else than what the heuristic was"
            if known is None or found.cost < known.cost:
                group = found
        proven = answer.status in ("OPTIMAL", "INFEASIBLE")
        bound = group.cost if proven and group is not None else max(0, int(np.ceil(answer.bound - 1e-6)))
        return Proof(group, bound, proven, len(rows), answer.wall_s)

    def _ask(self, question: dict[str, object]) -> _Answer:
        process = self._process
        assert process is not None, "use the solver as a context"
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise SolverGone("its pipe is closed", self._python) from None
        line = process.stdout.readline(MOST_LINE)
        if not line:
            raise SolverGone("it said nothing", self._python)
        return msgspec.json.decode(line, type=_Answer)


def _left(problem: Problem, known: Group | None) -> Ints:
    usable = problem.able.any(axis=0)
    if known is None:
        return np.flatnonzero(usable)
    rows = np.flatnonzero(usable & (problem.least_with() <= known.cost))
    others = problem.nodes - 1
    reach = _reach(problem, known)
    while others and len(rows) > problem.nodes:
        rtt = problem.rtt[np.ix_(rows, rows)].copy()
        np.fill_diagonal(rtt, NOBODY)
        cheap = np.where(rtt <= reach, problem.burden[rows][None, :], NOBODY)
        company = np.partition(cheap, others - 1, axis=1)[:, :others].sum(axis=1)
        distance = np.partition(rtt, others - 1, axis=1)[:, others - 1]
        kept = problem.burden[rows] + company + problem.us_wei * np.minimum(distance, FAR_US) <= known.cost
        if kept.all():
            break
        rows = rows[kept]
    return rows


def _reach(problem: Problem, known: Group) -> int:
    """No two of a better group are further apart."""
    reach = FAR_US if problem.most_rtt_us is None else problem.most_rtt_us
    return min(reach, (known.cost - problem.least()) // problem.us_wei) if problem.us_wei else reach


def _question(
    problem: Problem, known: Group | None, rows: Ints, seconds: float, seed: int
) -> dict[str, object]:
    rtt = problem.rtt[np.ix_(rows, rows)]
    burden = problem.burden[rows]
    most_rtt = problem.most_rtt_us if known is None else _reach(problem, known)
    at = {int(row): column for column, row in enumerate(rows)}
    hint = [[at[row] for row in part if row in at] for part in known.seats] if known is not None else []
    return {
        "price": problem.price[rows].tolist(),
        "burden": burden.tolist(),
        "rtt": rtt.tolist(),
        "operator": problem.operator[rows].tolist(),
        "counts": list(problem.counts),
        "able": problem.able[:, rows].astype(int).tolist(),
        "us_wei": problem.us_wei,
        "most_per_operator": problem.most_per_operator,
        "most_rtt_us": most_rtt,
        "most_price_wei": problem.most_price_wei,
        "most_cost": known.cost if known is not None else None,
        "hint": hint,
        "seconds": seconds,
        "seed": seed,
    }
