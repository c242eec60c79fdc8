"""Cards and progress as people read them. What a stranger's card says is shown as text: no markup, no control characters."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from clusterai.cli import say
from clusterai.content.core.card import BadCard, read

if TYPE_CHECKING:
    from clusterai.vault.core.card import VaultFacts

T = TypeVar("T")
MOST_SHOWN = 2_000
MOST_COLUMNS = 60


def plain(text: object, most: int = MOST_SHOWN) -> str:
    """A stranger's text for a terminal."""
    from rich.markup import escape

    return escape("".join(letter for letter in str(text)[:most] if letter.isprintable() or letter == "\n"))


def card(found: Mapping[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        (label, plain(", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else value))
        for label, name in (
            ("name", "name"), ("title", "alternateName"), ("description", "description"), ("licence", "license"),
            ("version", "version"), ("url", "url"), ("tags", "keywords"), ("personal data", "rai:personalSensitiveInformation"),
        )
        if (value := found.get(name))
    ]  # fmt: skip
    vault = None
    try:
        held = read(found)
    except BadCard:
        rows.append(("bytes", "not public: ask its vault (clusterai data request)"))
        vault = facts(found)
        if vault is not None:
            rows += _terms(vault)
    else:
        rows += [
            ("address", held.manifest),
            ("bytes", f"{held.bytes / 1e6:.1f} MB in {held.files} files"),
            *(("holder", plain(url)) for url in held.holders),
        ]
    say.pairs(rows)
    if vault is not None:
        _columns(vault)


def facts(found: Mapping[str, Any]) -> "VaultFacts | None":
    """What a vault's card says of columns and prices; None where it is no vault's."""
    import msgspec

    from clusterai.vault.core.card import BadCard as NoVault
    from clusterai.vault.core.card import read_facts
    from clusterai.vault.core.schema import BadSchema

    try:
        return read_facts(msgspec.json.encode(found))
    except (NoVault, BadSchema, ValueError):
        return None


def _terms(vault: "VaultFacts") -> list[tuple[str, object]]:
    from clusterai.protocol.money import show as money

    policy = vault.policy

    def words(name: str) -> list[str]:
        return [plain(it, 40) for it in _as(list[str], policy.get(name), [])[:MOST_COLUMNS]]

    operations, automatic, prices = (
        words("operations"),
        words("automatic"),
        _as(dict[str, dict[str, Any]], policy.get("prices"), {}),
    )
    each: list[tuple[str, Any]] = [("", policy), *prices.items()]
    costs = [
        f"{money(_whole(it, 'use_wei'))} a use, {money(1000 * _whole(it, 'milli_epsilon_wei'))} for ε 1"
        + (f" ({plain(name, 40)})" if name else "")
        for name, it in each[:MOST_COLUMNS]
    ]
    if "copy" in operations:
        costs.append(f"{money(_whole(policy, 'copy_wei'))} for a copy")
    at_once = f" (granted at once: {', '.join(automatic)})" if automatic else ""
    grant, each_key, total = (
        _whole(policy, f"{it}_epsilon_micro") / 1e6 for it in ("grant", "requester", "total")
    )
    return [
        ("allows", ", ".join(operations) + at_once),
        ("ε", f"{grant:g} a grant, {each_key:g} a requester, {total:g} in all, for ever"),
        ("price", "; ".join(costs)),
        ("rows of", f"{vault.schema.unit or 'one person each'}, {vault.schema.unit_rows} counted"),
    ]


def _whole(of: Mapping[str, Any], name: str) -> int:
    value = _as(int, of.get(name), 0)
    return value if 0 <= value < 1 << 128 else 0


def _as(kind: type[T], given: object, otherwise: T) -> T:
    """What a stranger wrote, where it is of that kind."""
    import msgspec

    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError:
        return otherwise


def _columns(vault: "VaultFacts") -> None:
    shown = vault.schema.columns[:MOST_COLUMNS]
    say.table(
        ("column", "kind", "access", "bounds or categories", "null"),
        [
            (
                it.name,
                it.kind,
                it.access,
                plain(", ".join(it.categories), 200)
                or (
                    f"{it.low} to {it.high}"
                    if it.low is not None
                    else f"{it.dtype} {'x'.join(map(str, it.shape))}".strip() or "-"
                ),
                "yes" if it.nullable else "",
            )
            for it in shown
        ],
    )
    if len(shown) < len(vault.schema.columns):
        say.say(f"and {len(vault.schema.columns) - len(shown)} columns more (--json)")
    say.say("→ clusterai data mock … makes rows like these, to write programs against")


@contextlib.contextmanager
def progress() -> Generator[Callable[[int, int], Callable[[int], None]]]:
    """A bar where somebody watches."""
    if say.is_quiet() or not say.person():
        yield lambda _all, _here: lambda _more: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=say.console(stderr=True),
    ) as bar:

        def begun(whole: int, here: int) -> Callable[[int], None]:
            task = bar.add_task("", total=whole, completed=here)
            return lambda more: bar.advance(task, more)

        yield begun
