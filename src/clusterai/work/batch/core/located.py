"""YAML whose every value knows its line, so that an error can point at it.

Values are read as what the field expects, not as what YAML 1.1 guesses: `python: 3.10` is the text 3.10, `on` is a text
where a text is wanted. Aliases are followed and count again each time, so that nothing grows past the bound.
"""

from typing import Any, cast

import msgspec
import yaml

MOST_BYTES = 256 * 1024
MOST_NODES = 20_000
MOST_DEPTH = 32

_TRUE = frozenset(("true", "yes", "on"))
_FALSE = frozenset(("false", "no", "off"))
_NULL = frozenset(("", "~", "null"))


class BadFile(ValueError):
    """line {line}: {what}. {why}. {cure}."""

    def __init__(self, line: int, what: str, why: str, cure: str = "") -> None:
        super().__init__(f"line {line}: {what}: {why}" + (f"; {cure}" if cure else ""))
        self.line = line
        self.what = what
        self.why = why
        self.cure = cure
        self.others: tuple[BadFile, ...] = ()
        """what else is wrong, behind it in the file"""


class Value(msgspec.Struct, frozen=True):
    """A scalar, a list or a table of a file, with the line (from 1) where it begins and what it is called.

    `held` is None for null, else str, list[Value] or dict[str, Value].
    """

    line: int
    name: str
    held: Any
    quoted: bool = False

    def wrong(self, why: str, cure: str = "") -> BadFile:
        return BadFile(self.line, self.name, why, cure)

    @property
    def is_null(self) -> bool:
        return self.held is None

    @property
    def is_text(self) -> bool:
        return isinstance(self.held, str)

    @property
    def is_list(self) -> bool:
        return isinstance(self.held, list)

    @property
    def is_table(self) -> bool:
        return isinstance(self.held, dict)

    def text(self) -> str:
        if not isinstance(self.held, str):
            raise self.wrong(f"must be a text, and is {self._shape()}")
        return self.held

    def items(self) -> "list[Value]":
        if not isinstance(self.held, list):
            raise self.wrong(f"must be a list, and is {self._shape()}", "begin each item with '- '")
        return cast("list[Value]", self.held)

    def table(self) -> "dict[str, Value]":
        if not isinstance(self.held, dict):
            raise self.wrong(f"must be a table of names and values, and is {self._shape()}")
        return cast("dict[str, Value]", self.held)

    def texts(self) -> list[str]:
        """A list of texts, or one text as a list of one."""
        return [self.text()] if self.is_text else [item.text() for item in self.items()]

    def flag(self) -> bool:
        text = self.text().lower()
        if text not in _TRUE | _FALSE:
            raise self.wrong(f"must be true or false, and is {self.held!r}")
        return text in _TRUE

    def integer(self, low: int, high: int) -> int:
        try:
            number = int(self.text(), 0)
        except ValueError:
            raise self.wrong(f"must be a whole number, and is {self.text()[:40]!r}") from None
        if not low <= number <= high:
            raise self.wrong(f"is {number}", f"make it between {low} and {high}")
        return number

    def _shape(self) -> str:
        match self.held:
            case None:
                return "empty"
            case str():
                return f"{self.held[:40]!r}"
            case list():
                return "a list"
            case _:
                return "a table"


def read(text: str) -> Value:
    """One YAML document.

    Raises:
        BadFile: too long, not YAML, more than one document, too deep, too much by aliases, or a name given twice.
    """
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise BadFile(
            1,
            "the file",
            f"is longer than {MOST_BYTES} bytes",
            "put scripts into files of their own, and run those",
        )
    try:
        node = cast("Any", yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadFile(line, "the file", f"isn't YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise BadFile(1, "the file", f"isn't YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise BadFile(1, "the file", "is nested too deeply", f"{MOST_DEPTH} levels are read") from None
    if node is None:
        raise BadFile(1, "the file", "is empty")
    return _Reading().value(node, "the file", 0)


class _Reading:
    def __init__(self) -> None:
        self._seen = 0

    def value(self, node: Any, name: str, depth: int) -> Value:
        line = int(node.start_mark.line) + 1
        self._seen += 1
        if self._seen > MOST_NODES:
            raise BadFile(
                line, name, f"makes more than {MOST_NODES} values", "aliases count each time they are used"
            )
        if depth > MOST_DEPTH:
            raise BadFile(line, name, "is nested too deeply", f"{MOST_DEPTH} levels are read")
        if isinstance(node, yaml.ScalarNode):
            quoted = node.style is not None
            raw = str(node.value)
            return Value(line, name, None if not quoted and raw.lower() in _NULL else raw, quoted)
        if isinstance(node, yaml.SequenceNode):
            inner = [
                self.value(item, f"{name}[{at}]" if depth else f"item {at}", depth + 1)
                for at, item in enumerate(node.value)
            ]
            return Value(line, name, inner)
        assert isinstance(node, yaml.MappingNode), "YAML has three kinds of nodes"
        found: dict[str, Value] = {}
        for key, item in node.value:
            at = int(key.start_mark.line) + 1
            if not isinstance(key, yaml.ScalarNode):
                raise BadFile(at, name, "has a name that isn't a text")
            label = str(key.value)
            if label == "<<" and key.style is None:
                raise BadFile(at, name, "merges another table by '<<'", "write its names out")
            if label in found:
                raise BadFile(at, label, "is given twice", "keep one of them")
            found[label] = self.value(item, f"{name}.{label}" if depth else label, depth + 1)
        return Value(line, name, found)
