"""Queries with noise beside plain SQL, OpenDP and diffprivlib: error and time, on scikit-learn's tables.

    python scripts/install.py peers privacy
    python -m bench.queries [--rounds 100] [--json]

The error is the median over rounds of the largest deviation from plain SQL (sqlite3, numpy for variance and median) over the answer's
cells, in percent of the plain value, for histograms and counts of the number of rows. Ours and OpenDP's hide whether somebody is in the
data at all; diffprivlib's mean and variance take the number of rows as known, and replace a person by another, which needs less noise.
Ours are whole queries, parsed, planned, measured and noised; the peers' are calls of one function.
"""

import argparse
import importlib
import json
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterai.vault.core.schema import Column, Schema
from clusterai.work.query.core.estimate import Answered, Estimate, estimated
from clusterai.work.query.core.measuring import measured
from clusterai.work.query.core.release import budget_of, released
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.core.stream import Stream
from clusterai.work.query.core.table import Table

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / ".venv" / "peers" / "privacy" / "bin" / "python"
EPSILONS = (0.1, 1.0, 4.0)
QUESTIONS = {
    "count": "select g, count(*) as v from t group by g",
    "avg": "select avg(x) as v from t",
    "variance": "select variance(x) as v from t",
    "sum": "select sum(x) as v from t",
    "histogram": "select histogram(x, 10) as v from t",
    "median": "select median(x) as v from t",
}

Values = NDArray[np.float64]


def plain(x: Values, groups: NDArray[np.int64], low: float, high: float) -> dict[str, Values]:
    """By sqlite where it has the aggregate."""
    with sqlite3.connect(":memory:") as db:
        db.execute("create table t (x real, g integer)")
        db.executemany("insert into t values (?, ?)", zip(x.tolist(), groups.tolist(), strict=True))
        counts = [row[0] for row in db.execute("select count(*) from t group by g order by g")]
        average, total = db.execute("select avg(x), sum(x) from t").fetchone()
    return {
        "count": np.array(counts, np.float64),
        "avg": np.array([average]),
        "variance": np.array([x.var(ddof=1)]),
        "sum": np.array([total]),
        "histogram": np.histogram(x, 10, (low, high))[0].astype(np.float64),
        "median": np.array([np.median(x)]),
    }


def error(what: str, found: Values, due: Values, rows: int) -> float:
    whole = rows if what in ("count", "histogram") else float(np.abs(due).max())
    return float(np.abs(found - due).max()) / whole * 100


class Ours:
    def __init__(self, x: Values, groups: NDArray[np.int64], low: float, high: float) -> None:
        labels = tuple(str(at) for at in range(int(groups.max()) + 1))
        self._schema = Schema(
            columns=(
                Column(name="x", kind="float", low=low, high=high),
                Column(name="g", kind="category", categories=labels),
            )
        )
        self._columns: dict[str, Any] = {"x": x, "g": groups.astype(str).astype(object)}
        self._rows = len(x)

    def answer(self, what: str, epsilon: float, seed: int) -> Values:
        plan = plan_of(QUESTIONS[what], self._schema)
        table = Table(
            self._schema, {name: self._columns[name] for name in plan.columns or ("x",)}, self._rows
        )
        key = seed.to_bytes(32)
        told = released(
            plan,
            measured(table, plan, Stream(key, "rows")),
            budget_of(plan, int(epsilon * 10**6)),
            Stream(key, f"{what} {epsilon}"),
        )
        cells = [row[-1] for row in estimated([Answered(plan, told)])]
        found: list[float] = []
        for cell in cells:
            parts = cell if isinstance(cell, tuple) else (cell,)
            found += [it.value or 0.0 for it in parts if isinstance(it, Estimate)]
        return np.array(found)


class OpenDP:
    """The same aggregates over clamped data under the same neighbours: one person more or less."""

    def __init__(self, x: Values, groups: NDArray[np.int64], low: float, high: float) -> None:
        self._dp: Any = importlib.import_module("opendp.prelude")
        self._dp.enable_features("contrib", "idealized-numerics")
        self._x, self._groups, self._bounds = x.tolist(), groups.tolist(), (low, high)
        self._classes = int(groups.max()) + 1

    def _made(self, what: str, epsilon: float) -> Any:
        dp = self._dp
        floats = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.symmetric_distance()
        ints = dp.vector_domain(dp.atom_domain(T=int)), dp.symmetric_distance()
        match what:
            case "sum":
                path = floats >> dp.t.then_clamp(self._bounds) >> dp.t.then_sum()
                return self._noised(path, epsilon)
            case "count":
                path = ints >> dp.t.then_count_by_categories(list(range(self._classes)), null_category=False)
                return self._noised(path, epsilon)
            case _:
                path = floats >> dp.t.then_count()
                return self._noised(path, epsilon)

    def _noised(self, path: Any, epsilon: float) -> Any:
        def chain(scale: float) -> Any:
            return path >> self._dp.m.then_laplace(scale)

        return self._dp.binary_search_chain(chain, 1, epsilon)

    def answer(self, what: str, epsilon: float, seed: int) -> Values | None:
        if what == "avg":
            # Its mean wants a public number of rows; over unknown many it is a sum by a count, half of the budget each.
            low, high = self._bounds
            total = self._made("sum", epsilon / 2)(self._x)
            return np.array([np.clip(total / max(1, self._made("rows", epsilon / 2)(self._x)), low, high)])
        if what in ("sum", "count"):
            return np.ravel(
                np.array(self._made(what, epsilon)(self._x if what == "sum" else self._groups), np.float64)
            )
        return None


def measure(
    answer: Callable[[str, float, int], Values | None], due: dict[str, Values], rows: int, rounds: int
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for what in QUESTIONS:
        for epsilon in EPSILONS:
            errors: list[float] = []
            times: list[float] = []
            for seed in range(rounds):
                began = time.perf_counter()
                value = answer(what, epsilon, seed)
                times.append((time.perf_counter() - began) * 1000)
                if value is not None:
                    errors.append(error(what, value, due[what], rows))
            if errors:
                found.append(
                    {
                        "what": what,
                        "epsilon": epsilon,
                        "error_percent": statistics.median(errors),
                        "ms": statistics.median(times),
                    }
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not PEER.exists():
        sys.exit("the peer isn't installed: python scripts/install.py peers privacy")
    peer = [str(PEER), str(ROOT / "bench" / "queries_peer.py"), str(options.rounds)]
    tables: Any = json.loads(subprocess.run(peer, capture_output=True, check=True).stdout)
    told: dict[str, Any] = {}
    for name, table in tables.items():
        x, groups = np.array(table["x"], np.float64), np.array(table["groups"], np.int64)
        low, high = table["low"], table["high"]
        due = plain(x, groups, low, high)
        theirs: list[dict[str, Any]] = []
        for what in QUESTIONS:
            for epsilon in EPSILONS:
                mine = [it for it in table["answers"] if (it["what"], it["epsilon"]) == (what, epsilon)]
                errors = [error(what, np.array(it["value"]), due[what], len(x)) for it in mine]
                theirs.append(
                    {
                        "what": what,
                        "epsilon": epsilon,
                        "error_percent": statistics.median(errors),
                        "ms": statistics.median(it["ms"] for it in mine),
                    }
                )
        told[name] = {
            "rows": len(x),
            "ours": measure(Ours(x, groups, low, high).answer, due, len(x), options.rounds),
            "opendp": measure(OpenDP(x, groups, low, high).answer, due, len(x), min(20, options.rounds)),
            "diffprivlib": theirs,
        }
    if options.json:
        print(json.dumps(told, indent=1))
        return
    for name, table in told.items():
        print(f"\n{name}, {table['rows']} rows: error in percent (ms)")
        for what in QUESTIONS:
            for epsilon in EPSILONS:
                cells: list[str] = []
                for who in ("ours", "opendp", "diffprivlib"):
                    mine = next(
                        (it for it in table[who] if (it["what"], it["epsilon"]) == (what, epsilon)), None
                    )
                    cells.append(
                        f"{who} {mine['error_percent']:8.3f} ({mine['ms']:6.2f})"
                        if mine
                        else f"{who}        -         "
                    )
                print(f"  {what:10} ε {epsilon:<4g} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
