"""A query's result from data and seed, and from nothing else: what a vault answers with, and what an audit does again.

Two who hold the same rows in the same order and the same noise key get the same bytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterai.protocol.ids import Digest
from clusterai.protocol.vaults import Operation
from clusterai.vault.core.schema import Schema
from clusterai.work.query.adapters.accounting import rho_nano
from clusterai.work.query.core.measuring import measured
from clusterai.work.query.core.plan import Plan
from clusterai.work.query.core.release import Budget, budget_of, released
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.core.stream import Stream
from clusterai.work.query.core.table import Table
from clusterai.work.query.spec import Averaged, Counted, Held, QuerySpec, Result

Columns = Mapping[str, NDArray[Any]]


def counted(spec: QuerySpec, schema: Schema, columns: Columns, seed: bytes) -> Counted:
    """The answer to SQL.

    Args:
        columns: those of the plan at least.

    Raises:
        RefusedQuery.
    """
    plan = plan_of(spec.sql, schema)
    return Counted(
        released(
            plan,
            measured(Table(schema, columns, rows_of(columns)), plan, Stream(seed, "rows")),
            budget(spec, plan),
            Stream(seed, "noise"),
        )
    )


def budget(spec: QuerySpec, plan: Plan) -> Budget:
    """How its ε and δ are used.

    Raises:
        ImportError: there is a δ, and no OpenDP.
    """
    rho = rho_nano(spec.epsilon_micro, spec.delta_pico)
    return budget_of(plan, spec.epsilon_micro, spec.delta_pico, rho)


def needed(plan: Plan, schema: Schema) -> tuple[str, ...]:
    """Columns to read for it: one at least, since it says how many rows there are."""
    return plan.columns or (schema.names[0],)


def rows_of(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def result_of(spec: QuerySpec, schema: Schema, seed: bytes, told: Counted | Averaged | Held) -> Result:
    return Result(
        spec.digest(), spec.dataset, spec.snapshot, schema.digest(), Stream(seed, "salt").take(32), told
    )


def replayed(spec: QuerySpec, schema: Schema, columns: Columns, seed: bytes) -> Result:
    """The result of SQL once more, for who holds data and noise key.

    Raises:
        RefusedQuery; ValueError: a program's answer is done again by `blocks.averaged`.
    """
    if spec.operation != Operation.QUERY:
        raise ValueError("only SQL is done again without a sandbox")
    return result_of(spec, schema, seed, counted(spec, schema, columns, seed))


def unit_codes(schema: Schema, columns: Columns) -> NDArray[np.int64]:
    """Whose each row is."""
    rows = rows_of(columns)
    if not schema.unit:
        return np.arange(rows, dtype=np.int64)
    return Table(schema, columns, rows).units(schema.unit)


def is_result(result: Result, due: Digest) -> bool:
    """Whether a result that was computed again is the one in the log of uses."""
    return result.digest() == due
