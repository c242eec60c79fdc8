"""`clusterai vault`: private data that others may compute on, under its owner's rules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterai.cli import options, say
from clusterai.cli.commands import vaultcare
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.cli.keeping import Plan, Row
    from clusterai.vault.adapters.folder import Outcome, VaultFolder
    from clusterai.vault.core.book import VaultBook
    from clusterai.vault.core.schema import Schema

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The vault's folder.", show_default=False)]
Request = Annotated[
    str, typer.Argument(metavar="REQUEST", help="Its id, or how it begins.", show_default=False)
]
Note = Annotated[str, typer.Option(help="A word to the requester.", show_default=False)]


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Keep private data: make a vault, decide who may compute on it, see every use.",
        no_args_is_help=True,
    )
    group.command()(init)
    group.command()(serve)
    group.command()(show)
    group.command()(mock)
    group.command()(inbox)
    group.command()(approve)
    group.command()(deny)
    group.command()(revoke)
    group.command()(uses)
    group.command()(outputs)
    group.command()(release)
    group.command()(withhold)
    group.command()(replay)
    group.command()(vaultcare.doctor)
    group.command()(vaultcare.lock)
    group.command()(vaultcare.replace)
    app.add_typer(group, name="vault")


def init(
    folder: Folder,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="The data: a .csv, .tsv, .jsonl or .npz, or a folder of .txt or .npz. Default: what lies in DIR itself.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The data set's name. Default: the folder's.", show_default=False)
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The columns, declared. Without, kinds, bounds and categories are guessed from the data, for you to read.",
            show_default=False,
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Whose row it is: the budget protects all rows of one. Default: each row is somebody else's.",
            show_default=False,
        ),
    ] = None,
    unit_rows: Annotated[int, typer.Option(min=1, help="Rows of one person that are counted.")] = 1,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who may do what; edit policy.toml later.", show_default=False),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Of a use; policy.toml has finer ones.", show_default=False),
    ] = None,
    epsilon_price: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Of ε 1, beside that of a use.", show_default=False),
    ] = None,
    free: Annotated[bool, typer.Option("--free", help="Ask nothing for it.")] = False,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The master key's file, made if it isn't there. With CLUSTERAI_KEY_PASSWORD it is a keystore.",
            show_default=False,
        ),
    ] = None,
    anonymise: Annotated[
        str | None,
        typer.Option(
            metavar="usual|strict",
            help="Take personal data out of texts before they are put in, and out of what programs leave for review: as well as it is found.",
            show_default=False,
        ),
    ] = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a vault: encrypt the data, and write card, schema, mock twin and policy beside it."""
    from clusterai.cli import keeping

    # Who only looks needn't have decided yet.
    free = free or (dry_run and price is None and epsilon_price is None)
    wish = keeping.Wish(
        folder,
        source,
        name,
        schema,
        policy,
        unit,
        unit_rows,
        key,
        anonymise or "",
        price,
        epsilon_price,
        free,
    )
    it = keeping.plan(wish)
    if not json:
        say.say(f"these columns will be published, with the vault [bold]{it.name}[/]:")
        _columns(it.schema)
        if any(column.guessed for column in it.schema.columns):
            say.say("* guessed from the data: it tells everybody that much. Else: --schema FILE, such as the")
            say.say("  schema.json that --dry-run --json writes, after you changed it")
    if dry_run:
        if json:
            say.emit({"name": it.name, "folder": str(it.root), "key": str(it.key), "schema": it.schema})
        return
    options.confirm("Publish these, and encrypt the data?", yes)
    made = keeping.made(it)
    rows, snapshot, size = keeping.rows_stored(made)
    if json:
        say.emit(
            {
                "name": it.name,
                "folder": str(made.root),
                "key": str(it.key),
                "rows": rows,
                "snapshot": snapshot,
            }
        )
        return
    say.tell(f"[green]made[/] {made.root}: {rows} rows, {size / 1e6:.1f} MB encrypted")
    if any(column.anonymised for column in it.schema.columns):
        say.say("  names and places are missed: docs/how-to/anonymise.md has the shares")
    _advise(it, folder)


def _advise(it: "Plan", folder: Path) -> None:
    from clusterai.ledger.adapters.network import is_keystore

    if not is_keystore(it.key):
        say.complain(
            f"the master key is in the clear in {it.key}: who reads this disk reads the data"
            f" → CLUSTERAI_KEY_PASSWORD=… clusterai vault lock {folder}"
        )
    say.say(f"  its key: {it.key}. Without it nobody can read the data, you neither: keep a copy elsewhere")
    say.say("  the data you gave lies where it lay, in the clear: delete it there when you have checked this")
    say.say(f"  → edit {it.root}/policy.toml and README.md     → clusterai vault show {folder}")
    say.say(f"  → clusterai vault serve {folder}")


def _columns(schema: "Schema") -> None:
    say.table(
        ("column", "kind", "access", "bounds or categories", "null"),
        [
            (
                f"{column.name}{' (unit)' if column.name == schema.unit else ''}",
                column.kind,
                column.access,
                (
                    ", ".join(column.categories)
                    or (f"{column.low} to {column.high}" if column.low is not None else "")
                    or (f"{column.dtype} {'x'.join(map(str, column.shape))}" if column.shape else "")
                    or (f"anonymised ({column.anonymised})" if column.anonymised else "-")
                )
                + (" *" if column.guessed else ""),
                "yes" if column.nullable else "",
            )
            for column in schema.columns
        ],
    )


def serve(
    folder: Folder,
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="A gateway of the network. Without one, that of this machine.",
            show_default=False,
        ),
    ] = None,
    node: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Where the node lives. Default: clusterai/node in your data folder.",
            show_default=False,
        ),
    ] = None,
    owner_key: Annotated[
        Path | None,
        typer.Option(
            help="The owner's key file; without it, one is made in the node's folder. The data set's id follows from it.",
            show_default=False,
        ),
    ] = None,
    stake: Annotated[float, typer.Option(help="Tokens at stake, at least.", min=0.0)] = 1000.0,
    start: Annotated[
        bool,
        typer.Option(help="Start the node; without, something else does: systemd, a container."),
    ] = True,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Offer a vault to requesters: join the network if this machine hasn't, and let its node hold the vault beside all else.

    It needs no open port, and goes on when this command ends; `clusterai node drain` ends it.
    """
    from clusterai.cli import joining, serving
    from clusterai.cli.reach import gateway
    from clusterai.cli.settings import default_node

    vault = serving.vault_in(folder)
    place = joining.NodeFolder(node or default_node())
    with gateway(data, url=url) as client:
        plan = serving.planned(client, place, vault, owner_key, stake, options.folder(data))
        if json and dry_run:
            say.emit({"steps": plan.steps, "folder": str(place.root), "vault": str(vault.root)})
        elif not json:
            for step in plan.steps:
                say.tell(f"  • {step}")
        if dry_run:
            return
        options.confirm("Go on?", yes)
        served = serving.served(client, place, vault, plan, start=start)
    if json:
        say.emit(served)
        return
    if not start:
        say.tell(f"the data set will be {served.dataset}; not started")
        say.tell(f"  → python -m clusterai.node --config {place.config}")
        return
    say.tell(f"[green]served[/] as data set {served.dataset}; its node runs as process {served.pid}")
    say.tell(
        f"  → clusterai vault inbox {folder}     → clusterai vault uses {folder}     → clusterai node drain"
    )


def show(folder: Folder, json: options.Json = False, quiet: options.Quiet = False) -> int:
    """Say what a vault is, what was spent, and whether its files are in order. Exit code 6: one isn't."""
    import time

    from clusterai.cli import keeping
    from clusterai.protocol.ids import hex0x
    from clusterai.protocol.vaults import Operation
    from clusterai.vault.adapters.folder import BadVault
    from clusterai.vault.core.card import BadCard, read_readme
    from clusterai.vault.core.cleaning import left_standing
    from clusterai.vault.core.policy import epsilon

    it = keeping.opened(folder)
    wrong: list[str] = []
    try:
        read_readme(it.readme.read_bytes())
    except (OSError, BadCard) as error:
        wrong.append(str(error))
    try:
        policy = it.policy()
        schema = it.schema()
    except BadVault as error:
        raise Failure("the vault's files aren't in order", str(error), code=Exit.UNTRUE) from None
    wrong += [
        f"the policy wants texts anonymised, and {name} isn't: clusterai vault replace {folder} --from PATH"
        for name in left_standing(schema, policy)
    ]
    book = keeping.book(it)
    rows, snapshot, size = keeping.rows_stored(it)
    listed = keeping.listing(it)
    waiting = [row for row in keeping.rows(book, time.time()) if row.state == "asked"]
    told: dict[str, Any] = {
        "name": it.named.name,
        "folder": str(it.root),
        "dataset": None if listed is None else hex0x(listed.dataset),
        "owner": None if listed is None else hex0x(listed.owner),
        "served": it.is_served(),
        "rows": rows,
        "bytes": size,
        "snapshot": snapshot,
        "key_epoch": book.key_epoch,
        "operations": [Operation(operation).name.lower() for operation in policy.operations],
        "epsilon_total": policy.total_epsilon_micro / 1e6,
        "epsilon_spent": book.total_spent_micro / 1e6,
        "left_standing": left_standing(schema, policy),
        "waiting": len(waiting),
        "uses": len(book.uses()),
        "wrong": wrong,
    }
    if json:
        say.emit({**told, "schema": schema})
        return Exit.UNTRUE if wrong else Exit.OK
    spent = f"{epsilon(book.total_spent_micro)} of {epsilon(policy.total_epsilon_micro)}"
    say.pairs(
        [
            ("name", it.named.name),
            ("data set", told["dataset"] or "known when it is served for the first time"),
            ("served", "yes" if told["served"] else f"no: clusterai vault serve {folder}"),
            ("rows", f"{rows}, {size / 1e6:.1f} MB encrypted under key {book.key_epoch}"),
            ("snapshot", snapshot),
            ("allowed", ", ".join(told["operations"])),
            ("ε spent", spent),
            ("uses", told["uses"]),
            ("waiting", f"{len(waiting)} requests: clusterai vault inbox {folder}" if waiting else "none"),
        ]
    )
    _columns(schema)
    for why in wrong:
        say.complain(f"error: {why}")
    return Exit.UNTRUE if wrong else Exit.OK


def mock(
    folder: Folder,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed, the same rows.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here. Default: stdout.", show_default=False)
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Write rows that look like the vault's, made from its schema alone: CSV, for others to write programs against."""
    from clusterai.cli import keeping
    from clusterai.vault.adapters.folder import BadVault
    from clusterai.vault.core.mock import mock_csv

    try:
        found = mock_csv(keeping.opened(folder).schema(), rows, seed)
    except BadVault as error:
        raise Failure("there is nothing to make a mock of", str(error)) from None
    if out is None:
        say.stdout().write(found.decode())
    else:
        out.write_bytes(found)
        say.say(f"{rows} rows in {out}")


def inbox(
    folder: Folder,
    every: Annotated[bool, typer.Option("--all", help="Those that were decided, too.")] = False,
    code: Annotated[
        str | None,
        typer.Option(
            metavar="REQUEST",
            help="Print the program that came with this request, and nothing else.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List who asks for what: operation, ε, price, purpose, program. Read a program with --code."""
    import time

    from clusterai.cli import keeping

    it = keeping.opened(folder)
    book = keeping.book(it)
    listed = keeping.rows(book, time.time())
    if code is not None:
        row = keeping.one(listed, code, "request")
        _program(book, row)
        return
    shown = listed if every else [row for row in listed if row.state == "asked"]
    if json:
        say.emit({"requests": shown})
        return
    for row in shown:
        _tell(row)
    if not shown:
        say.tell("nobody waits" if not every else "nobody has asked yet")
    elif not every:
        say.say(
            f"→ clusterai vault approve {folder} {shown[0].request[2:10]}     → … deny …     → … inbox {folder} --code …"
        )


def _program(book: "VaultBook", row: "Row") -> None:
    from clusterai.cli import keeping
    from clusterai.protocol.ids import digest

    code = book.entries[digest(row.request)].code
    if not code:
        raise Failure(
            f"no program is kept for {row.request}",
            "SQL brings none, and a denied request's isn't kept",
            code=Exit.NOT_FOUND,
        )
    say.stdout().write(keeping.printable(code))


def _tell(row: "Row") -> None:
    import datetime

    from rich.markup import escape

    from clusterai.protocol.money import show as money

    until = datetime.datetime.fromtimestamp(row.expires_s, datetime.UTC).date().isoformat()
    say.tell(
        f"[bold]{row.request[2:10]}[/] {row.state}{' by policy' if row.automatic else ''}  from {row.requester}"
    )
    if row.grant is not None:
        say.tell(f"  grant    {row.grant}")
    say.tell(
        f"  wants    {row.operation}: ε {row.epsilon:g} in {row.uses} uses until {until}, at most {money(row.price_wei)} a use"
    )
    if row.used:
        say.tell(f"  used     ε {row.spent_epsilon:g} in {row.used} uses")
    if row.code is not None:
        say.tell(f"  program  {row.code}, {row.code_bytes} bytes")
    words = "".join(it if it.isprintable() else " " for it in row.purpose)
    say.tell(f"  purpose  {escape(words)}")
    if row.note:
        say.tell(f"  note     {escape(row.note)}")


def approve(
    folder: Folder,
    request: Request,
    note: Note = "",
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Grant a request, as it was asked. Read its program first: what you approve runs on the data."""
    _decide(folder, request, "approve", note, yes, json)


def deny(
    folder: Folder,
    request: Request,
    note: Note = "",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Deny a request."""
    _decide(folder, request, "deny", note, True, json)


def _decide(folder: Path, request: str, act: str, note: str, yes: bool, json: bool) -> None:
    import time

    from clusterai.cli import keeping
    from clusterai.vault.adapters.folder import Command

    it = keeping.opened(folder)
    row = keeping.one(keeping.rows(keeping.book(it), time.time()), request, "request")
    if not yes:
        _tell(row)
        options.confirm("Approve it?", yes)
    outcome = keeping.command(it, Command("approve" if act == "approve" else "deny", row.request, note=note))
    _told(it, folder, row.request, outcome, json)


def revoke(
    folder: Folder,
    grant: Annotated[
        str, typer.Argument(metavar="GRANT", help="Its id, or how it begins.", show_default=False)
    ],
    reason: Annotated[str, typer.Option(help="asked, terms, policy, consent, key or law.")] = "policy",
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """End a grant now. What is stored gets new keys; what its holder has learnt or copied, it has."""
    import time

    from clusterai.cli import keeping
    from clusterai.protocol.vaults import Revoked
    from clusterai.vault.adapters.folder import Command

    known = {it.name.lower(): int(it) for it in Revoked if it}
    if reason not in known:
        raise Failure(f"--reason {reason}", f"it is one of {', '.join(known)}", code=Exit.USAGE)
    it = keeping.opened(folder)
    row = keeping.one(keeping.rows(keeping.book(it), time.time()), grant, "grant")
    assert row.grant is not None
    if not yes:
        _tell(row)
        options.confirm("Revoke it?", yes)
    outcome = keeping.command(it, Command("revoke", row.grant, reason=known[reason]))
    _told(it, folder, row.grant, outcome, json)


def _told(it: "VaultFolder", folder: Path, target: str, outcome: "Outcome | None", json: bool) -> None:
    state = "left" if outcome is None else outcome.state
    if json:
        say.emit({"target": target, "state": state})
    elif outcome is None:
        say.tell(f"nobody serves the vault in {it.root} now: it is done when somebody does")
        say.tell(f"  → clusterai vault serve {folder}")
    else:
        waits = {"approved": ": on its way to the chain"}
        say.tell(f"{state}{waits.get(state, '')}")


def uses(folder: Folder, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List every use of the data: by whom, how much ε it spent, what it was asked to pay, what left."""
    import datetime

    from clusterai.cli import keeping
    from clusterai.protocol.money import show as money

    it = keeping.opened(folder)
    book = keeping.book(it)
    found = keeping.uses(book)
    if json:
        say.emit({"uses": found, "epsilon_spent": book.total_spent_micro / 1e6, "anchored": book.anchored})
        return
    say.table(
        ("#", "when", "requester", "grant", "#ε", "#asks", "left the vault"),
        [
            (
                "open" if row.index is None else row.index,
                datetime.datetime.fromtimestamp(row.at_s, datetime.UTC).isoformat(" ", "seconds")[:19],
                row.requester[:12] + "…",
                row.grant[2:10],
                f"{row.epsilon:g}",
                money(row.price_wei),
                row.result[:12] + "…" if row.result else "nothing",
            )
            for row in found
        ],
    )
    say.tell(f"ε {book.total_spent_micro / 1e6:g} of {book.budget_micro / 1e6:g} spent, for ever")
    say.say("what was paid: clusterai node earnings")


def replay(
    folder: Folder,
    query: Annotated[
        Path,
        typer.Option(metavar="FILE", help="What `clusterai query --json` wrote.", show_default=False),
    ],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Compute a query's answer again from rows and noise key, and compare it with the log. Exit code 6: it differs."""
    from clusterai.cli import keeping
    from clusterai.cli.querying import replaying

    done = replaying.replay(keeping.opened(folder), replaying.specs_of(query))
    if json:
        say.emit({"queries": done})
    else:
        said = {True: "the same bytes as then", False: "not what was answered"}
        say.table(
            ("query", "again", "logged", ""),
            [
                (
                    it.query[:18],
                    it.result[:18],
                    it.logged[:18] if it.logged else "-",
                    said[it.same] if it.logged else "not in the log",
                )
                for it in done
            ],
        )
    return Exit.OK if all(it.same for it in done) else Exit.UNTRUE


Order = Annotated[str, typer.Argument(metavar="ORDER", help="Its id, or how it begins.", show_default=False)]


def outputs(
    folder: Folder,
    read: Annotated[
        str | None,
        typer.Option(metavar="ORDER", help="Print this one, and nothing else.", show_default=False),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List what programs left for review, and what disclosure control found in it. Nothing of it leaves before you let it."""
    from clusterai.cli import keeping

    it = keeping.opened(folder)
    if read is not None:
        say.stdout().write(keeping.printable(keeping.output(it, read)[1]))
        return
    found = [lying for lying, _ in keeping.outputs(it)]
    if json:
        say.emit({"outputs": found})
        return
    say.table(
        ("order", "state", "requester", "#bytes", "found in it"),
        [
            (
                lying.order[2:10],
                lying.state,
                lying.requester[:12] + "…",
                lying.bytes,
                "; ".join(f"{one.code}: {one.detail}" for one in lying.findings) or "-",
            )
            for lying in found
        ],
    )
    if any(lying.state == "held" for lying in found):
        say.say(f"→ clusterai vault outputs {folder} --read …     → … release …     → … withhold …")


def release(
    folder: Folder,
    order: Order,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let an output go to who made it, once you have read it. Plain rows don't pass. It is a use of its own in the log."""
    from clusterai.cli import keeping
    from clusterai.vault.adapters.folder import Command

    it = keeping.opened(folder)
    lying, content = keeping.output(it, order)
    if not yes:
        say.stdout().write(keeping.printable(content))
        for one in lying.findings:
            say.say(f"[yellow]{one.code}[/]: {one.detail}")
        options.confirm("Let it go?", yes)
    _told(it, folder, lying.order, keeping.command(it, Command("release", lying.order)), json)


def withhold(
    folder: Folder,
    order: Order,
    note: Note = "",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Delete an output that must not leave; its requester is told so."""
    from clusterai.cli import keeping
    from clusterai.vault.adapters.folder import Command

    it = keeping.opened(folder)
    lying, _ = keeping.output(it, order)
    _told(it, folder, lying.order, keeping.command(it, Command("withhold", lying.order, note=note)), json)
