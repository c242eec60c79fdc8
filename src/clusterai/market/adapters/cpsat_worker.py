"""The process in which CP-SAT runs: a problem a line on stdin, an answer a line on stdout. Imports nothing of ours.

The diameter is one integer variable D. Pairs further apart than any group may be exclude each other; of the others

    i chosen, and j chosen  =>  D >= rtt_ij

is said by levels: boolean b_l is "D is at least level l", i and j chosen imply the b of their distance, and b_l implies b_(l-1).
The levels are the distinct distances themselves, so nothing is rounded.
"""

import importlib
import itertools
import json
import sys
from typing import Any


def main() -> None:
    cp_model: Any = importlib.import_module("ortools.sat.python.cp_model")
    for line in sys.stdin:
        print(json.dumps(solve(cp_model, json.loads(line))), flush=True)


def solve(cp_model: Any, problem: dict[str, Any]) -> dict[str, Any]:
    model = cp_model.CpModel()
    able, counts, rtt = problem["able"], problem["counts"], problem["rtt"]
    size = len(problem["burden"])
    seat: list[list[Any]] = [
        [model.new_bool_var("") if able[part][row] else None for row in range(size)]
        for part in range(len(counts))
    ]
    chosen: list[Any] = []
    for row in range(size):
        mine = [part[row] for part in seat if part[row] is not None]
        one = model.new_bool_var("") if len(mine) != 1 else mine[0]
        if len(mine) != 1:
            model.add(sum(mine) == one)
        chosen.append(one)
    for part, count in enumerate(counts):
        model.add(sum(it for it in seat[part] if it is not None) == count)

    most = problem["most_rtt_us"]
    levels = sorted({rtt[i][j] for i in range(size) for j in range(i) if most is None or rtt[i][j] <= most})
    at_least = {level: model.new_bool_var("") for level in levels}
    for low, high in itertools.pairwise(levels):
        model.add_implication(at_least[high], at_least[low])
    for i in range(size):
        for j in range(i):
            if rtt[i][j] in at_least:
                model.add_bool_or([~chosen[i], ~chosen[j], at_least[rtt[i][j]]])
            else:
                model.add_bool_or([~chosen[i], ~chosen[j]])
    steps = [high - low for low, high in itertools.pairwise([0, *levels])]
    diameter = sum(step * at_least[level] for step, level in zip(steps, levels, strict=True))

    if problem["most_per_operator"] is not None:
        for operator in sorted(set(problem["operator"])):
            theirs = [chosen[row] for row in range(size) if problem["operator"][row] == operator]
            if len(theirs) > problem["most_per_operator"]:
                model.add(sum(theirs) <= problem["most_per_operator"])
    if problem["most_price_wei"] is not None:
        prices = sum(price * it for price, it in zip(problem["price"], chosen, strict=True))
        model.add(prices <= problem["most_price_wei"])
    cost = sum(burden * it for burden, it in zip(problem["burden"], chosen, strict=True))
    cost = cost + problem["us_wei"] * diameter
    if problem["most_cost"] is not None:
        model.add(cost <= problem["most_cost"])
    model.minimize(cost)
    for part, members in enumerate(problem["hint"]):
        for row in range(size):
            if seat[part][row] is not None:
                model.add_hint(seat[part][row], row in members)

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = problem["seconds"]
    solver.parameters.random_seed = problem["seed"]
    # One worker: the same problem gives the same answer.
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return {
        "status": solver.status_name(status),
        "bound": solver.best_objective_bound if found else 0.0,
        "seats": [
            [row for row in range(size) if it[row] is not None and solver.value(it[row])] for it in seat
        ]
        if found
        else [],
        "wall_s": solver.wall_time,
    }


if __name__ == "__main__":
    main()
