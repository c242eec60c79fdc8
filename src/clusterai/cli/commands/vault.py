"""`clusterai vault`: private data that others may compute on, under its owner's rules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterai.cli import options, say
from clusterai.cli.commands import vaultcare, vaultdesk
from clusterai.cli.commands.vaultcare import Folder
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.cli.keeping import Plan
    from clusterai.vault.core.schema import Schema


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Keep private data: make a vault, decide who may compute on it, see every use.",
        no_args_is_help=True,
    )
    group.command()(init)
    group.command()(serve)
    group.command()(show)
    group.command()(mock)
    for command in vaultdesk.COMMANDS:
        group.command()(options.spread(command))
    group.command()(vaultcare.doctor)
    group.command()(vaultcare.lock)
    group.command()(vaultcare.replace)
    group.command()(vaultcare.move)
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
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the encrypted pieces shall lie: s3://bucket/prefix, file:///folder. Credentials come from the environment. Default: in DIR.",
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
        store,
    )
    it = keeping.plan(wish)
    if not json:
        say.say(f"these columns will be published, with the vault [bold]{it.name}[/]:")
        _columns(it.schema)
        if any(column.guessed for column in it.schema.columns):
            say.say("* guessed from the data: it tells everybody that much. Else: --schema FILE, such as the")
            say.say("  schema.json that --dry-run --json writes, after you changed it")
        from rich.markup import escape

        for note in it.notes:
            say.say(f"[yellow]note[/] {escape(note)}")
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
    where = "" if node is None else f" --folder {node}"
    say.tell(
        f"  → clusterai vault inbox {folder}     → clusterai vault uses {folder}     → clusterai node drain{where}"
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
        "store": it.named.store,
        "snapshot": snapshot,
        "key_epoch": book.key_epoch,
        "operations": [Operation(operation).name.lower() for operation in policy.operations],
        "epsilon_total": policy.total_epsilon_micro / 1e6,
        "epsilon_spent": book.total_spent_micro / 1e6,
        "residency": list(policy.residency),
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
            *([("pieces", it.named.store)] if it.named.store else []),
            ("snapshot", snapshot),
            ("allowed", ", ".join(told["operations"])),
            *(
                [
                    (
                        "residency",
                        f"rows stay in {', '.join(policy.residency)}; answers, sums, models and releases leave",
                    )
                ]
                if policy.residency
                else []
            ),
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
