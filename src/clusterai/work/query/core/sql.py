"""From SQL to a plan, or to a refusal that says what to write instead.

sqlglot parses; what isn't named here is refused. Only one grammar is accepted:

    select KEY | AGGREGATE [as NAME], … [from NAME] [where FILTER] [group by KEY, …]
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from clusterai.vault.core.schema import BadSchema, Column, Schema, days
from clusterai.work.query.core.plan import (
    MOST_CELLS,
    Bins,
    Both,
    Compare,
    Comparison,
    Constant,
    Either,
    Filter,
    Function,
    IsNull,
    Key,
    Measure,
    Moment,
    Negated,
    OneOf,
    Output,
    People,
    Plan,
    Rank,
    RefusedQuery,
    Rows,
    Whole,
    width,
)

MOST_SQL = 2_000
"""The parser's worst inputs take up to half a second at this length."""
MOST_DEPTH = 32
MOST_OUTPUTS = 64
MOST_VALUES = 256
MOST_INT_GROUPS = 64
MOST_BINS = 256
POINTS = 512
"""Values between which a quantile is drawn."""

_COMPARISONS: dict[type[exp.Expr], Comparison] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_FLIPPED: dict[Comparison, Comparison] = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SPREADS: dict[type[exp.Expr], Function] = {
    exp.Variance: "variance",
    exp.VariancePop: "var_pop",
    exp.Stddev: "stddev",
    exp.StddevSamp: "stddev",
    exp.StddevPop: "stddev_pop",
}
_CLAUSES = {
    "from_": "",
    "where": "",
    "group": "",
    "expressions": "",
    "having": "filter the answer yourself: it costs no budget",
    "order": "sort the answer yourself: it costs no budget",
    "limit": "the answer has one row a declared group: take the rows that you want",
    "joins": "a query reads one vault; the same query to several vaults joins their answers",
    "distinct": "write count(distinct UNIT) for the number of people",
    "with_": "write one select",
    "windows": "write group by",
}
MENU = "count, sum, avg, variance, var_pop, stddev, stddev_pop, median, quantile(x, q) and histogram(x, bins) are answered"


def plan_of(sql: str, schema: Schema) -> Plan:
    """
    Raises:
        RefusedQuery: with what to write instead.
    """
    try:
        return _Planner(schema).plan(_parsed(sql))
    except RecursionError:
        raise RefusedQuery("it is nested too deeply", f"nest at most {MOST_DEPTH} deep") from None


def _parsed(sql: str) -> exp.Select:
    if len(sql) > MOST_SQL:
        raise RefusedQuery(f"it has {len(sql)} characters", f"write at most {MOST_SQL}")
    depth = deepest = 0
    for letter in sql:
        depth += (letter in "([") - (letter in ")]")
        deepest = max(deepest, depth)
    # Chains of `not` and of signs nest without brackets.
    if deepest > MOST_DEPTH or sql.lower().count("not") > 200 or "--" in sql or "/*" in sql:
        raise RefusedQuery(
            "it is nested too deeply, or holds a comment", f"nest at most {MOST_DEPTH} deep, no comments"
        )
    try:
        statements = sqlglot.parse(sql)
    except (SqlglotError, RecursionError, ValueError) as error:
        said = str(error).split("\n")[0][:200]
        raise RefusedQuery(
            f"it can't be read ({said})", "write: select avg(x) from data group by y"
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise RefusedQuery("it isn't one select", "write: select avg(x) from data group by y")
    select = statements[0]
    for clause, given in select.args.items():
        instead = _CLAUSES.get(clause, "write only select, from, where and group by")
        if given and instead:
            raise RefusedQuery(f"{clause.strip('_')} isn't answered", instead)
    source = select.args.get("from_")
    if source is not None and (
        not isinstance(source.this, exp.Table)
        or any(source.this.args.get(it) for it in ("joins", "pivots", "sample"))
    ):
        raise RefusedQuery("it selects from something other than a name", "write: from data")
    return select


class _Planner:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._columns = {column.name.lower(): column for column in schema.columns}
        self._measures: list[Measure] = []

    def plan(self, select: exp.Select) -> Plan:
        group = select.args.get("group")
        given: list[exp.Expr] = []
        if group is not None:
            if any(value for name, value in group.args.items() if name != "expressions"):
                raise RefusedQuery("grouping sets aren't answered", "ask one query a grouping")
            given = list(group.expressions)
        keys = tuple(self._key(it) for it in given)
        if len(set(keys)) != len(keys):
            raise RefusedQuery("a group stands twice", "name each once")
        if not 1 <= len(select.expressions) <= MOST_OUTPUTS:
            raise RefusedQuery(f"it selects {len(select.expressions)} columns", f"select 1 to {MOST_OUTPUTS}")
        # Averages first: a sum of the same column then follows from what they need.
        shapes = [it.this if isinstance(it, exp.Alias) else it for it in select.expressions]
        self._centred = {
            self._column(it.this).name
            for it in shapes
            if isinstance(it, (exp.Avg, *_SPREADS)) and it.this is not None
        }
        outputs = [self._output(it, given, keys) for it in select.expressions]
        names = [output.name for output in outputs]
        if len(set(names)) != len(names):
            raise RefusedQuery("two columns of the answer have one name", "give them names: avg(x) as mean")
        if not self._measures:
            raise RefusedQuery("it asks for no aggregate", MENU)
        where = select.args.get("where")
        plan = Plan(
            tuple(outputs),
            keys,
            tuple(self._measures),
            None if where is None else self._filter(where.this),
            self._schema.unit,
            self._schema.unit_rows if self._schema.unit else 1,
        )
        cells = plan.groups * sum(map(width, plan.measures))
        if cells > MOST_CELLS:
            raise RefusedQuery(
                f"the answer would have {cells} numbers", f"ask for at most {MOST_CELLS}: fewer groups"
            )
        return plan

    # --- columns ---

    def _column(self, it: exp.Expr | None) -> Column:
        if not isinstance(it, exp.Column) or not isinstance(it.this, exp.Identifier):
            said = "nothing" if it is None else it.sql()[:60]
            raise RefusedQuery(
                f"{said} isn't a column", "aggregates, groups and filters take a column's name, no formula"
            )
        column = self._columns.get(it.name.lower())
        if column is None:
            raise RefusedQuery(
                f"there is no column {it.name[:60]}", f"columns are {', '.join(self._schema.names)[:300]}"
            )
        return column

    def _number(self, it: exp.Expr | None) -> tuple[Column, Fraction, Fraction]:
        """A column with numbers and declared bounds."""
        column = self._column(it)
        self._not_unit(column)
        if column.kind not in ("int", "float", "bool") or column.bounds is None:
            raise RefusedQuery(
                f"{column.name} is a {column.kind} without bounds",
                "this takes int, float and bool columns whose bounds the owner declared",
            )
        low, high = (
            (Fraction(str(bound)) for bound in (column.low, column.high))
            if column.kind != "bool"
            else (
                Fraction(0),
                Fraction(1),
            )
        )
        if low == high:
            raise RefusedQuery(f"{column.name} has the one value {low} by its declaration", "leave it away")
        return column, low, high

    def _not_unit(self, column: Column) -> None:
        if column.name == self._schema.unit:
            raise RefusedQuery(
                f"{column.name} says who a row belongs to",
                f"nothing but count(distinct {column.name}) may use it",
            )

    # --- groups ---

    def _key(self, it: exp.Expr) -> Key:
        if isinstance(it, exp.Anonymous) and it.name.lower() == "bucket" and len(it.expressions) == 2:
            column, low, high = self._number(it.expressions[0])
            buckets = self._whole(it.expressions[1], 2, MOST_BINS, "buckets")
            edges = [low + (high - low) * at / buckets for at in range(buckets + 1)]
            labels = tuple(f"{_spelt(edges[at])}..{_spelt(edges[at + 1])}" for at in range(buckets))
            return Key(column.name, labels, buckets)
        if not isinstance(it, exp.Column):
            raise RefusedQuery(f"group by {it.sql()[:60]}", "group by a column, or by bucket(x, 10)")
        column = self._column(it)
        self._not_unit(column)
        if column.kind == "category":
            return Key(column.name, column.categories)
        if column.kind == "bool":
            return Key(column.name, ("false", "true"))
        if column.kind == "int" and column.bounds is not None:
            low, high = (int(bound) for bound in column.bounds)
            if high - low < MOST_INT_GROUPS:
                return Key(column.name, tuple(str(value) for value in range(low, high + 1)))
        raise RefusedQuery(
            f"the groups of {column.name} aren't declared",
            f"group by categories, bools, ints of at most {MOST_INT_GROUPS} values, or by bucket({column.name}, 10): "
            "which groups exist would tell who is in the data",
        )

    # --- outputs ---

    def _output(self, it: exp.Expr, given: Sequence[exp.Expr], keys: Sequence[Key]) -> Output:
        name = it.alias if isinstance(it, exp.Alias) else ""
        shape = it.this if isinstance(it, exp.Alias) else it
        if shape in given:
            return Output(name or shape.sql(), "", (given.index(shape),))
        if isinstance(shape, exp.Column):
            self._column(shape)
            raise RefusedQuery(
                f"{shape.name} is a column of rows", f"rows never leave: {MENU}, or group by it"
            )
        function, uses = self._aggregate(shape)
        return Output((name or shape.sql().lower())[:120], function, uses)

    def _aggregate(self, it: exp.Expr) -> tuple[Function, tuple[int, ...]]:
        match it:
            case exp.Count():
                return "count", self._count(it)
            case exp.Sum():
                column, low, high = self._number(it.this)
                if column.name in self._centred:
                    return "sum", self._moments(column, low, high, 1)
                return "sum", (self._measure(Whole(column.name, low, high)),)
            case exp.Avg():
                return "avg", self._moments(*self._number(it.this), 1)
            case exp.Median():
                return "quantile", (self._rank(it.this, Fraction(1, 2)),)
            case exp.Quantile() | exp.ApproxQuantile():
                share = self._constant_number(it.args.get("quantile"))
                if not 0 < share < 1 or share.denominator > 1000:
                    raise RefusedQuery(
                        f"quantile {share}", "take a share between 0 and 1, in thousandths at the finest"
                    )
                return "quantile", (self._rank(it.this, share),)
            case exp.Anonymous() if it.name.lower() == "histogram" and len(it.expressions) == 2:
                column, low, high = self._number(it.expressions[0])
                bins = self._whole(it.expressions[1], 2, MOST_BINS, "bins")
                return "histogram", (self._measure(Bins(column.name, low, high, bins)),)
            case _:
                pass
        function = _SPREADS.get(type(it))
        if function is None:
            raise RefusedQuery(f"{it.sql()[:60]} isn't answered", MENU)
        return function, self._moments(*self._number(it.this), 2)

    def _count(self, it: exp.Count) -> tuple[int, ...]:
        if it.expressions:
            raise RefusedQuery("count takes one column", "write count(*) or count(x)")
        if isinstance(it.this, exp.Star):
            return (self._measure(Rows()),)
        if isinstance(it.this, exp.Distinct):
            if (
                len(it.this.expressions) != 1
                or self._column(it.this.expressions[0]).name != self._schema.unit
            ):
                raise RefusedQuery(
                    "count(distinct …) counts people",
                    f"write count(distinct {self._schema.unit})" if self._schema.unit else "write count(*)",
                )
            return (self._measure(People()),)
        column = self._column(it.this)
        self._not_unit(column)
        return (self._rows(column),)

    def _rows(self, column: Column) -> int:
        return self._measure(Rows(column.name if column.nullable or column.kind == "float" else ""))

    def _moments(self, column: Column, low: Fraction, high: Fraction, power: int) -> tuple[int, ...]:
        """The count, the sum about the middle, and with `power` 2 the squares about it."""
        centre, half = (low + high) / 2, (high - low) / 2
        uses = (self._rows(column), self._measure(Moment(column.name, 1, centre, half)))
        return uses if power == 1 else (*uses, self._measure(Moment(column.name, 2, centre, half)))

    def _rank(self, it: exp.Expr | None, share: Fraction) -> int:
        column, low, high = self._number(it)
        points = min(POINTS, int(high - low) + 1) if column.kind != "float" else POINTS
        return self._measure(Rank(column.name, low, high, share, max(2, points)))

    def _measure(self, measure: Measure) -> int:
        if measure not in self._measures:
            self._measures.append(measure)
        return self._measures.index(measure)

    # --- filters ---

    def _filter(self, it: exp.Expr, depth: int = 0) -> Filter:
        if depth > MOST_DEPTH:
            raise RefusedQuery("its filter is nested too deeply", f"nest at most {MOST_DEPTH} deep")
        match it:
            case exp.Paren():
                return self._filter(it.this, depth + 1)
            case exp.And():
                return Both(tuple(self._filter(part, depth + 1) for part in it.flatten()))
            case exp.Or():
                return Either(tuple(self._filter(part, depth + 1) for part in it.flatten()))
            case exp.Not():
                return Negated(self._filter(it.this, depth + 1))
            case exp.Between():
                column = self._filtered(it.this)
                low, high = (self._constant(column, it.args.get(side)) for side in ("low", "high"))
                return Both((self._compare(column, ">=", low), self._compare(column, "<=", high)))
            case exp.In() if it.expressions:
                column = self._filtered(it.this)
                if len(it.expressions) > MOST_VALUES:
                    raise RefusedQuery(
                        f"in (…) lists {len(it.expressions)} values", f"list at most {MOST_VALUES}"
                    )
                return OneOf(column.name, tuple(self._constant(column, value) for value in it.expressions))
            case exp.Is() if isinstance(it.expression, exp.Null):
                return IsNull(self._filtered(it.this).name)
            case exp.Column():
                column = self._filtered(it)
                if column.kind == "bool":
                    return Compare(column.name, "=", True)
            case _:
                pass
        how = _COMPARISONS.get(type(it))
        if how is None:
            raise RefusedQuery(
                f"where {it.sql()[:60]}",
                "compare columns with constants by = <> < <= > >=, between, in, is null, and, or, not",
            )
        left, right = it.this, it.expression
        if not isinstance(left, exp.Column):
            left, right, how = right, left, _FLIPPED[how]
        column = self._filtered(left)
        return self._compare(column, how, self._constant(column, right))

    def _filtered(self, it: exp.Expr | None) -> Column:
        column = self._column(it)
        self._not_unit(column)
        if column.kind in ("text", "array"):
            raise RefusedQuery(
                f"{column.name} is {column.kind}", "filter by numbers, dates, bools and categories"
            )
        return column

    def _compare(self, column: Column, how: Comparison, value: Constant) -> Compare:
        if how not in ("=", "<>") and column.kind in ("category", "bool"):
            raise RefusedQuery(f"{column.name} has no order", "compare it by =, <> or in")
        return Compare(column.name, how, value)

    def _constant(self, column: Column, it: exp.Expr | None) -> Constant:
        match column.kind:
            case "bool" if isinstance(it, exp.Boolean):
                return bool(it.this)
            case "category" if isinstance(it, exp.Literal) and it.is_string:
                if it.this not in column.categories:
                    listed = ", ".join(column.categories)[:200]
                    raise RefusedQuery(
                        f"{column.name} is never {it.this[:40]!r}", f"its categories are {listed}"
                    )
                return str(it.this)
            case "date":
                text = it.this if isinstance(it, exp.Cast) and isinstance(it.this, exp.Literal) else it
                if isinstance(text, exp.Literal) and text.is_string:
                    try:
                        return Fraction(days(text.this))
                    except BadSchema as error:
                        raise RefusedQuery(str(error), "write dates as '2026-03-31'") from None
            case "int" | "float":
                return self._constant_number(it)
            case _:
                pass
        said = "nothing" if it is None else it.sql()[:40]
        raise RefusedQuery(
            f"{said} is no {column.kind}", f"{column.name} is compared with a constant of kind {column.kind}"
        )

    def _constant_number(self, it: exp.Expr | None) -> Fraction:
        sign = 1
        while isinstance(it, (exp.Neg, exp.Paren)):
            sign, it = (-sign, it.this) if isinstance(it, exp.Neg) else (sign, it.this)
        if not isinstance(it, exp.Literal) or it.is_string or len(it.this) > 40:
            raise RefusedQuery(
                "a number is missing" if it is None else f"{it.sql()[:40]} is no number", "write a number"
            )
        try:
            # By way of a float, as the columns' values are: 1e-999999 as a fraction would have a million digits.
            value = float(it.this)
        except ValueError:
            value = math.inf
        if not abs(value) < 1e18:
            raise RefusedQuery(f"{it.this[:40]} is no number below 1e18", "write another")
        return sign * Fraction(repr(value))

    def _whole(self, it: exp.Expr, low: int, high: int, what: str) -> int:
        value = self._constant_number(it)
        if value.denominator != 1 or not low <= value <= high:
            raise RefusedQuery(f"{value} {what}", f"take {low} to {high}")
        return int(value)


def _spelt(edge: Fraction) -> str:
    return f"{float(edge):.6g}"
