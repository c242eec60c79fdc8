"""From SQL to one closed question to all vaults: their bounds are put together, so that every vault scales by the same.

    select count(*), sum(x), avg(x), variance(x), stddev(y), … [from NAME]
    select histogram(x, 20)
    select regression(y, x1, x2, …)

Only the requester reads SQL here; vaults get the question itself. Bounds are the widest that any vault declares. Noise is in shares of the range, so a vault
that declares more than the others costs everybody accuracy; what lies outside of a vault's own bounds isn't there anyway.
"""

import math
from collections.abc import Mapping

import msgspec
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from clusterai.vault.core.schema import Schema
from clusterai.vault.core.secagg.joint import MICRO, Histogram, Moments, Range, Regression

MOST_SQL = 2_000
MOST_COLUMNS, MOST_FEATURES, MOST_CELLS = 64, 32, 256
MENU = "count(*), sum, avg, variance, var_pop, stddev, stddev_pop; or one histogram(x, cells); or one regression(y, x1, …)"

_MOMENTS: dict[type[exp.Expr], str] = {
    exp.Sum: "sum",
    exp.Avg: "avg",
    exp.Variance: "variance",
    exp.VariancePop: "var_pop",
    exp.Stddev: "stddev",
    exp.StddevSamp: "stddev",
    exp.StddevPop: "stddev_pop",
}


class BadQuestion(ValueError):
    """Vaults don't answer this together: {what}. {instead}."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}: {instead}")
        self.what, self.instead = what, instead


class Output(msgspec.Struct, frozen=True):
    """One number of the answer; `column` is empty for the count of rows."""

    name: str
    function: str
    column: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """A question, and which numbers of its answer were asked for (of moments; the others tell all they have)."""

    question: Moments | Histogram | Regression
    outputs: tuple[Output, ...] = ()


def question_of(sql: str, schemas: Mapping[str, Schema]) -> Wanted:
    """
    Args:
        schemas: of each vault, by its name.

    Raises:
        BadQuestion: with what to write instead.
    """
    shapes: list[exp.Expr] = [it.this if isinstance(it, exp.Alias) else it for it in _selected(sql)]
    given = [it.alias if isinstance(it, exp.Alias) else "" for it in _selected(sql)]
    special = [it for it in shapes if isinstance(it, exp.Anonymous)]
    if special:
        if len(shapes) != 1:
            raise BadQuestion(
                "a histogram or a regression stands alone", "ask the rest by a query of its own"
            )
        return _special(special[0], schemas)
    outputs: list[Output] = []
    for shape, name in zip(shapes, given, strict=True):
        spelt = name or shape.sql().lower()
        if isinstance(shape, exp.Count):
            if not isinstance(shape.this, exp.Star):
                raise BadQuestion(shape.sql()[:60], "write count(*)")
            outputs.append(Output(spelt, "count"))
            continue
        function = _MOMENTS.get(type(shape))
        if function is None:
            raise BadQuestion(f"{shape.sql()[:60]} isn't answered jointly", MENU)
        outputs.append(Output(spelt, function, _name(shape.this)))
    columns = list(dict.fromkeys(it.column for it in outputs if it.column))
    if not 1 <= len(columns) <= MOST_COLUMNS:
        raise BadQuestion(
            f"it is about {len(columns)} columns", f"name 1 to {MOST_COLUMNS}: count(*), avg(x)"
        )
    if len({it.name for it in outputs}) != len(outputs):
        raise BadQuestion("two numbers of the answer have one name", "give them names: avg(x) as mean")
    return Wanted(Moments(tuple(_range(it, schemas) for it in columns)), tuple(outputs))


def _selected(sql: str) -> list[exp.Expr]:
    if len(sql) > MOST_SQL:
        raise BadQuestion(f"it has {len(sql)} characters", f"write at most {MOST_SQL}")
    try:
        statements = sqlglot.parse(sql)
    except (SqlglotError, RecursionError, ValueError) as error:
        raise BadQuestion(
            f"it can't be read ({str(error).split(chr(10))[0][:200]})", f"select {MENU}"
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise BadQuestion("it isn't one select", f"select {MENU}")
    select = statements[0]
    for clause, value in select.args.items():
        if value and clause not in ("expressions", "from_", "kind"):
            raise BadQuestion(
                f"{clause.strip('_')} isn't answered jointly",
                "without --joint each vault answers it by itself",
            )
    return list(select.expressions)


def _special(shape: exp.Anonymous, schemas: Mapping[str, Schema]) -> Wanted:
    name, parts = shape.name.lower(), shape.expressions
    if name == "histogram" and len(parts) == 2:
        cells = int(parts[1].this) if isinstance(parts[1], exp.Literal) and parts[1].is_int else 0
        if not 2 <= cells <= MOST_CELLS:
            raise BadQuestion(f"histogram(x, {parts[1].sql()[:20]})", f"take 2 to {MOST_CELLS} cells")
        return Wanted(Histogram(_range(_name(parts[0]), schemas), cells))
    if name == "regression" and 2 <= len(parts) <= MOST_FEATURES + 1:
        names = [_name(it) for it in parts]
        if len(set(names)) != len(names):
            raise BadQuestion("a column stands twice in the regression", "name each once")
        target, *features = (_range(it, schemas) for it in names)
        return Wanted(Regression(tuple(features), target))
    raise BadQuestion(f"{shape.sql()[:60]} isn't answered jointly", MENU)


def _name(it: exp.Expr | None) -> str:
    if not isinstance(it, exp.Column) or not isinstance(it.this, exp.Identifier):
        raise BadQuestion(
            "nothing" if it is None else f"{it.sql()[:60]} isn't a column", "name a column, no formula"
        )
    return it.name


def _range(name: str, schemas: Mapping[str, Schema]) -> Range:
    lows: list[int] = []
    highs: list[int] = []
    spelt = name
    for vault, schema in schemas.items():
        column = next((it for it in schema.columns if it.name.lower() == name.lower()), None)
        if column is None:
            raise BadQuestion(
                f"{vault} has no column {name[:60]}", f"its columns are {', '.join(schema.names)[:300]}"
            )
        if column.name == schema.unit:
            raise BadQuestion(f"{column.name} says who a row of {vault} belongs to", "no statistic uses it")
        if column.kind not in ("int", "float", "bool") or column.bounds is None:
            raise BadQuestion(
                f"{column.name} is a {column.kind} without bounds at {vault}",
                "this takes int, float and bool columns whose bounds the owners declared",
            )
        if column.name != spelt and len(lows):
            raise BadQuestion(f"{vault} spells {spelt} as {column.name}", "vaults are asked by one name")
        spelt = column.name
        low, high = column.bounds
        lows.append(math.floor(low * MICRO))
        highs.append(math.ceil(high * MICRO))
    found = Range(spelt, min(lows), max(highs)) if max(map(abs, (*lows, *highs))) <= 2**62 else None
    if found is None or found.span <= 0:
        raise BadQuestion(f"{spelt}'s bounds hold no range", "leave it away")
    return found
