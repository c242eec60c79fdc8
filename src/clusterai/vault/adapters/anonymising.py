"""Personal data out of texts and tables before they leave: by Presidio, ANJANA and pyCANON, in a process of their own.

Their pins contradict ours, so they live in an environment of their own (`scripts/peers/anonymise.txt`) and answer on a pipe. What
they do is best effort: docs/how-to/anonymise.md says what was missed on labelled sentences. What a table promises is counted
again here: rows that share their quasi-identifiers, and what was left out.
"""

import csv
import io
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

WORKER = Path(__file__).parent / "anonymise_worker.py"
MOST_LINE = 256 << 20
MOST_TEXT = 500_000
"""Letters of one text; a longer one is cut at line ends."""
MOST_CELLS = 5_000_000
BATCH = 200_000
"""Letters that go in one line."""
LEAST_SCORE = 0.35
"""Below this Presidio's own guesses are mostly wrong; raise it and more is left standing."""


A = TypeVar("A", bound=msgspec.Struct)


class AnonymiserGone(RuntimeError):
    """The anonymiser ended: {why}. See whether {python} has what scripts/peers/anonymise.txt lists."""

    def __init__(self, why: str, python: Path) -> None:
        super().__init__(
            f"the anonymiser ended: {why}. See whether {python} has what scripts/peers/anonymise.txt lists"
        )


class NotAnonymous(ValueError):
    """The table can't be made as anonymous as was asked; the message says why. Nothing was written."""


class Span(msgspec.Struct, frozen=True):
    """Letters `start` to `end` of the text as it was."""

    kind: str
    start: int
    end: int
    score: float


class Cleaned(msgspec.Struct, frozen=True):
    text: str
    found: tuple[Span, ...]


class TablePlan(msgspec.Struct, frozen=True):
    """What to do with which columns; those that aren't named stay as they are.

    Attributes:
        identifiers: left out altogether: names, numbers of people.
        quasi: together they point at a person: age, postcode, sex. They are made coarser.
        sensitive: what must not be learnt of a person; used by `ell` and `t` alone.
        k: at least so many rows look alike. ell: with at least so many different sensitive values among them.
        t: whose distribution is at most so far from that of all rows; 1 asks for nothing.
        suppress_percent: of rows may be left out to get there.
    """

    quasi: tuple[str, ...]
    identifiers: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """columns of free text, cleaned as texts are"""
    k: int = 5
    ell: int = 1
    t: float = 1.0
    suppress_percent: float = 5.0
    strict: bool = False
    """of `texts`"""


class CleanTable(msgspec.Struct, frozen=True):
    """Columns as they may leave, and what was reached, counted."""

    columns: dict[str, list[str]]
    k: int
    ell: int
    t: float
    left_out: int


class _Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    texts: list[str]
    found: list[tuple[Span, ...]]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    columns: dict[str, list[str]] = {}
    k: int = 0
    ell: int = 0
    t: float = 1.0
    left_out: int = 0
    why: str = ""


def default_python() -> Path:
    """Where `scripts/install.py peers anonymise` puts it."""
    return Path(sys.prefix) / "peers" / "anonymise" / "bin" / "python"


class Anonymiser:
    """One process; use it as a context. Not for several threads at once."""

    def __init__(self, python: Path | None = None, seconds: float = 600.0) -> None:
        """
        Args:
            seconds: for one question at most.
        """
        self._python = python or default_python()
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Anonymiser":
        try:
            self._process = subprocess.Popen(
                [str(self._python), "-I", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise AnonymiserGone(error.strerror or str(error), self._python) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._process is not None, "it was entered"
        self._process.kill()
        self._process.communicate()

    def texts(
        self, texts: Sequence[str], *, least: float = LEAST_SCORE, strict: bool = False, plain: bool = False
    ) -> list[Cleaned]:
        """Each with what was found in it replaced by `<KIND>`.

        Args:
            least: score from which something counts as found, 0 to 1.
            strict: whatever looks like a name or a longer number goes too, whether or not it was recognized as
                anybody's: more is found, and more is taken away that was harmless.
            plain: by Presidio's own recognizers alone; the same for all questions to one process.

        Raises:
            AnonymiserGone. ValueError: a text is too long: split it.
        """
        if any(len(text) > MOST_TEXT for text in texts):
            raise ValueError(f"a text of more than {MOST_TEXT} letters: split it")
        cleaned: list[Cleaned] = []
        for batch in _batches(texts):
            got = self._ask(
                {"op": "text", "texts": batch, "least": least, "strict": strict, "plain": plain}, _Texts
            )
            if len(got.texts) != len(batch) or len(got.found) != len(batch):
                raise AnonymiserGone("it answered something else", self._python)
            cleaned += [Cleaned(text, found) for text, found in zip(got.texts, got.found, strict=True)]
        return cleaned

    def text(self, text: str, *, least: float = LEAST_SCORE, strict: bool = False) -> Cleaned:
        """One text of any length, in parts that end where lines do."""
        parts = _parts(text)
        found: list[Span] = []
        at = 0
        out = ""
        for part, got in zip(parts, self.texts(parts, least=least, strict=strict), strict=True):
            found += [Span(it.kind, it.start + at, it.end + at, it.score) for it in got.found]
            out += got.text
            at += len(part)
        return Cleaned(out, tuple(found))

    def table(self, columns: dict[str, list[str]], plan: TablePlan) -> CleanTable:
        """
        Args:
            columns: all of one length. Columns whose every value is a number are made coarser as numbers.

        Raises:
            NotAnonymous, AnonymiserGone.
        """
        rows = _checked(columns, plan)
        typed = {name: _numbers(values) if name in plan.quasi else values for name, values in columns.items()}
        asked = {
            "op": "table",
            "columns": typed,
            "quasi": list(plan.quasi),
            "identifiers": list(plan.identifiers),
            "sensitive": list(plan.sensitive),
            "k": plan.k,
            "ell": plan.ell,
            "t": plan.t,
            "suppress_percent": plan.suppress_percent,
        }
        got = self._ask(asked, _Table)
        if got.why:
            raise NotAnonymous(got.why)
        made = {name: got.columns[name] for name in columns if name in got.columns}
        for name in plan.texts:
            different = list(dict.fromkeys(made[name]))
            cleaned = self.texts(different, strict=plan.strict)
            by = {text: it.text for text, it in zip(different, cleaned, strict=True)}
            made[name] = [by[text] for text in made[name]]
        left = len(next(iter(made.values())))
        groups = Counter(zip(*(made[name] for name in plan.quasi), strict=True))
        reached = min(groups.values(), default=0)
        if set(made) & set(plan.identifiers) or reached < plan.k:
            raise NotAnonymous(f"counted again, only {reached} rows look alike, asked for {plan.k}")
        if rows - left > rows * plan.suppress_percent / 100 + 1e-9:
            raise NotAnonymous(
                f"{rows - left} of {rows} rows would be left out, at most {plan.suppress_percent} %"
            )
        if plan.sensitive and (got.ell < plan.ell or got.t > plan.t + 1e-6):
            raise NotAnonymous(f"l is {got.ell} and t {got.t}: ask for less, or let more rows be left out")
        return CleanTable(made, reached, got.ell, got.t, rows - left)

    def _ask(self, question: Mapping[str, object], kind: type[A]) -> A:
        process = self._process
        assert process is not None, "use it as a context"
        assert process.stdin is not None
        assert process.stdout is not None
        # A text that takes a pattern hours would hold us for ever.
        timer = threading.Timer(self._seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline(MOST_LINE)
        except OSError as error:
            raise AnonymiserGone(error.strerror or "its pipe is closed", self._python) from None
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise AnonymiserGone("it said nothing", self._python)
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError as error:
            raise AnonymiserGone(str(error), self._python) from None


def read_csv(text: str) -> dict[str, list[str]]:
    """
    Raises:
        NotAnonymous: it has no header, a column twice, or rows of other lengths.
    """
    rows = list(csv.reader(io.StringIO(text)))
    header = rows[0] if rows else []
    if len(rows) < 2 or not all(header) or len(set(header)) != len(header):
        raise NotAnonymous("a table needs a header with different names, and rows")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise NotAnonymous(f"row {number} has {len(row)} cells, the header {len(header)}")
    return {name: [row[at] for row in rows[1:]] for at, name in enumerate(header)}


def write_csv(columns: dict[str, list[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def _checked(columns: dict[str, list[str]], plan: TablePlan) -> int:
    named = [*plan.quasi, *plan.identifiers, *plan.sensitive, *plan.texts]
    unknown = [name for name in named if name not in columns]
    if unknown:
        raise NotAnonymous(f"there is no column {unknown[0]!r}: {', '.join(columns)}")
    if len(set(named)) != len(named):
        raise NotAnonymous("a column stands twice in the plan")
    rows = len(next(iter(columns.values()), list[str]()))
    if not plan.quasi or rows < plan.k or plan.k < 2:
        raise NotAnonymous(f"{rows} rows can't be {plan.k} alike in {len(plan.quasi)} columns")
    if rows * len(columns) > MOST_CELLS:
        raise NotAnonymous(f"{rows * len(columns)} cells, at most {MOST_CELLS}: split the table")
    return rows


def _numbers(values: list[str]) -> list[float] | list[str]:
    try:
        return [float(it) for it in values]
    except ValueError:
        return values


def _batches(texts: Sequence[str]) -> list[list[str]]:
    batches: list[list[str]] = []
    room = 0
    for text in texts:
        if not batches or len(text) > room:
            batches.append([])
            room = BATCH
        batches[-1].append(text)
        room -= len(text)
    return batches


def _parts(text: str) -> list[str]:
    """Of at most 20,000 letters where lines allow it: spaCy's memory grows with a text's length."""
    parts: list[str] = [""]
    for line in text.splitlines(keepends=True):
        for at in range(0, len(line), MOST_TEXT):
            piece = line[at : at + MOST_TEXT]
            if len(parts[-1]) + len(piece) > 20_000:
                parts.append("")
            parts[-1] += piece
    return parts
