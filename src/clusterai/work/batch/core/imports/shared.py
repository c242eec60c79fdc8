"""What the readers of other formats share: fields that say the same in several of them, and notes of what isn't honoured."""

import contextlib
import re
from collections.abc import Generator, Iterable, Mapping

from clusterai.work.batch.core.jobfile import environment, given
from clusterai.work.batch.core.located import BadFile, Value
from clusterai.work.batch.core.request import Unhonoured

BASH = ("/bin/bash", "-c")
DOLLARS = (
    "prices there are in dollars, and this network has no rate for them; use --max-price or --max-hourly"
)


_FETCHES = re.compile(
    r"""(?:^|[\s;&|(`])  # where a command begins
    ((?:uv[ ])?pip3?[ ]install|uv[ ]sync|apt(?:-get)?[ ](?:-\S+[ ])*(?:update|install)|(?:conda|mamba)[ ]install|npm[ ](?:ci|install)
    |git[ ]clone|curl|wget|(?:hf|huggingface-cli)[ ]download|aws[ ]s3|gsutil|gcloud[ ]storage)\s""",
    re.VERBOSE | re.MULTILINE,
)
_NAMED = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


class Notes:
    """What of a file isn't honoured, and what makes it another job than can be done here: all of it is told at once."""

    def __init__(self) -> None:
        self._found: list[Unhonoured] = []
        self._refused: list[BadFile] = []

    @contextlib.contextmanager
    def whole(self) -> Generator[None]:
        """Around all that reads a file.

        Raises:
            BadFile: the first that was refused, with the others.
        """
        with self.part():
            yield
        if self._refused:
            first, *others = sorted(self._refused, key=lambda it: it.line)
            first.others = tuple(others)
            raise first

    @contextlib.contextmanager
    def part(self) -> Generator[None]:
        """Around what the rest of the file can be read without."""
        try:
            yield
        except BadFile as error:
            self._refused.append(error)

    def refuse(self, value: Value, why: str, cure: str) -> None:
        self._refused.append(value.wrong(why, cure))

    def add(self, line: int, what: str, why: str) -> None:
        self._found.append(Unhonoured(line, what, why))

    def passed(self, table: dict[str, Value], name: str, why: str) -> None:
        if given(table, name):
            self.add(table[name].line, table[name].name, why)

    def fetching(self, script: Value) -> None:
        """What it fetches would be the first thing to fail: machines there have a network, jobs here don't."""
        for text in script.texts():
            for command in sorted({found[1] for found in _FETCHES.finditer(text)}):
                self.add(
                    script.line,
                    f"{script.name}: {command}",
                    "needs a network, and a job has none: lay in what it fetches, or name an image that has it",
                )

    def variables(
        self, scripts: Iterable[Value], begin: str, env: tuple[tuple[str, str], ...], own: Mapping[str, str]
    ) -> tuple[tuple[str, str], ...]:
        """The environment with what that tool sets itself. What it sets and we can't is told where a script uses it.

        Args:
            begin: of the names that are that tool's, such as `DSTACK_`.
            own: those that say the same here.
        """
        known = dict(own) | dict(env)
        # `${NAME:-other}` has what it falls back on, and `NAME=` gives it a value.
        used = re.compile(rf"\b{begin}[A-Z0-9_]+\b(?!:?[-=])")
        for script in scripts:
            for name in sorted({it for text in script.texts() for it in used.findall(text)} - known.keys()):
                self.add(
                    script.line,
                    f"${name}",
                    f"nothing here sets it, so it would be empty; --env {name}=… does, or leave it out",
                )
        return tuple(sorted(known.items()))

    def all(self) -> tuple[Unhonoured, ...]:
        return tuple(sorted(self._found, key=lambda it: it.line))


def one_machine(table: dict[str, Value], name: str, notes: Notes) -> None:
    if given(table, name) and table[name].text() != "1":
        notes.refuse(
            table[name],
            f"asks for {table[name].text()} machines",
            "a job is one program on one machine; rent a cluster for more",
        )


def no_secrets(table: dict[str, Value], name: str, notes: Notes) -> None:
    if given(table, name) and table[name].held:
        notes.refuse(
            table[name],
            "would be read by gateway, provider and auditors",
            "a job's spec is public; leave secrets out",
        )


def present(value: Value) -> tuple[tuple[str, str], ...]:
    """SkyPilot's empty variables are taken from the shell; here nothing is."""
    for name, item in value.table().items() if value.is_table else ():
        if item.is_null:
            raise item.wrong(
                f"{name} is to be given on the command line", "write its value here: the spec must be whole"
            )
    return environment(value)


def filled(value: Value, text: str, env: Mapping[str, str]) -> str:
    """With the variables of `envs` put in, as SkyPilot does before it looks for files."""

    def put_in(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in env:
            raise value.wrong(f"names ${name}", "give it a value under envs, or write the path out")
        return env[name]

    return _NAMED.sub(put_in, text)


def needed(value: Value, table: dict[str, Value], name: str) -> Value:
    if not given(table, name):
        raise value.wrong(f"has no {name!r}", "write it out: nothing is guessed")
    return table[name]


def at_least(value: Value) -> Value:
    """`4+` asks for four or more: what is promised is four."""
    return Value(value.line, value.name, value.text().rstrip("+x "), value.quoted)


def lowest(value: Value, text: str) -> Value:
    """The low end of dstack's `2..8`, which is what is promised."""
    low, dots, high = text.replace(" ", "").partition("..")
    return Value(value.line, value.name, (low or high) if dots else text, value.quoted)


def how_many(value: Value, text: str) -> int:
    return Value(value.line, value.name, text).integer(1, 64)


def words(table: dict[str, Value], name: str) -> tuple[str, ...]:
    return tuple(table[name].texts()) if given(table, name) else ()


def container(value: Value, begin: str) -> str:
    text = value.text().removeprefix(begin)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}", text):
        raise value.wrong(
            f"is {text[:80]!r}, which can change under its name",
            "name the content: NAME@sha256:… as `docker images --digests` or `skopeo inspect` show it",
        )
    return text


def name_of(value: Value | None) -> str:
    """A name as ours may be, out of any."""
    if value is None or value.is_null:
        return ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value.text()).strip("-._")[:64]
