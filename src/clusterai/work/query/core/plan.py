"""What a query may be: a small closed language over declared columns, whose effect on privacy is known term by term.

    Plan = aggregates, for each of the groups, over the rows that a filter keeps

A plan holds no SQL and no data. It is compiled into *measures*, whole-number vectors to which noise is added: several aggregates share
measures, `avg(x)` and `variance(x)` both the count and the sum of x, and the budget is split over measures, not over aggregates.
"""

from fractions import Fraction
from typing import Literal

import msgspec

MOST_CELLS = 4_096
"""Of groups times the widths of measures: what one answer may hold."""

Function = Literal[
    "count", "sum", "avg", "variance", "var_pop", "stddev", "stddev_pop", "quantile", "histogram"
]
Comparison = Literal["=", "<>", "<", "<=", ">", ">="]
Constant = Fraction | str | bool


class RefusedQuery(ValueError):
    """This query isn't answered: {what}. {instead}"""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}; {instead}")
        self.what, self.instead = what, instead


# --- filters ---


class Compare(msgspec.Struct, frozen=True):
    column: str
    how: Comparison
    value: Constant


class OneOf(msgspec.Struct, frozen=True):
    column: str
    values: tuple[Constant, ...]


class IsNull(msgspec.Struct, frozen=True):
    column: str


class Both(msgspec.Struct, frozen=True):
    parts: "tuple[Filter, ...]"


class Either(msgspec.Struct, frozen=True):
    parts: "tuple[Filter, ...]"


class Negated(msgspec.Struct, frozen=True):
    part: "Filter"


Filter = Compare | OneOf | IsNull | Both | Either | Negated


# --- groups ---


class Key(msgspec.Struct, frozen=True):
    """What rows are grouped by: declared categories, or `buckets` equal parts of a number's declared bounds.

    `labels` are all groups that can be, whatever the data holds: which groups exist must not tell who is in them.
    """

    column: str
    labels: tuple[str, ...]
    buckets: int = 0


# --- measures ---


class Rows(msgspec.Struct, frozen=True):
    """How many rows; with `column`, how many whose value isn't null."""

    column: str = ""


class People(msgspec.Struct, frozen=True):
    """How many privacy units have a row here."""


class Moment(msgspec.Struct, frozen=True):
    """The sum of (x - centre) ** power over the clipped values, in steps of `unit`.

    Attributes:
        power: 1 or 2. The square is itself centred, on half of its largest value, which halves what one row can move.
        centre, half: the clipped value lies in centre - half … centre + half.
    """

    column: str
    power: Literal[1, 2]
    centre: Fraction
    half: Fraction

    @property
    def span(self) -> Fraction:
        """The most that one row adds, in the column's own measure."""
        return self.half if self.power == 1 else self.half * self.half / 2

    @property
    def offset(self) -> Fraction:
        """What is to be added per row to get from what was summed to (x - centre) ** power."""
        return Fraction(0) if self.power == 1 else self.half * self.half / 2


class Whole(msgspec.Struct, frozen=True):
    """The sum of the clipped values themselves; `span` is the largest absolute value."""

    column: str
    low: Fraction
    high: Fraction

    @property
    def span(self) -> Fraction:
        return max(abs(self.low), abs(self.high))


class Bins(msgspec.Struct, frozen=True):
    """How many rows in each of `bins` equal parts of the bounds; what lies outside is counted in the outermost."""

    column: str
    low: Fraction
    high: Fraction
    bins: int


class Rank(msgspec.Struct, frozen=True):
    """Which of `points` evenly spread values has a share `share` of the rows below it: drawn, not counted."""

    column: str
    low: Fraction
    high: Fraction
    share: Fraction
    points: int


Measure = Rows | People | Moment | Whole | Bins | Rank


def width(measure: Measure) -> int:
    """Numbers that it has in each group."""
    return measure.bins if isinstance(measure, Bins) else 1


# --- the whole ---


class Output(msgspec.Struct, frozen=True):
    """A column of the answer: a key (`function` empty, `uses` its index), or a function of measures by index."""

    name: str
    function: Function | Literal[""]
    uses: tuple[int, ...]


class Plan(msgspec.Struct, frozen=True):
    """
    Attributes:
        unit: the privacy unit's column; empty where each row is somebody else's.
        unit_rows: rows of one unit that count.
    """

    outputs: tuple[Output, ...]
    keys: tuple[Key, ...]
    measures: tuple[Measure, ...]
    where: Filter | None
    unit: str
    unit_rows: int

    @property
    def groups(self) -> int:
        count = 1
        for key in self.keys:
            count *= len(key.labels)
        return count

    def labels(self, group: int) -> tuple[str, ...]:
        """Of a group by its number; the last key runs fastest."""
        found: list[str] = []
        for key in reversed(self.keys):
            group, at = divmod(group, len(key.labels))
            found.append(key.labels[at])
        return tuple(reversed(found))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read, the unit's among them, sorted."""
        names = {key.column for key in self.keys} | {self.unit}
        for measure in self.measures:
            names.add("" if isinstance(measure, People) else measure.column)
        waiting = [self.where]
        while waiting:
            match waiting.pop():
                case None:
                    pass
                case Both(parts) | Either(parts):
                    waiting += parts
                case Negated(part):
                    waiting.append(part)
                case Compare(column) | OneOf(column) | IsNull(column):
                    names.add(column)
        return tuple(sorted(names - {""}))
