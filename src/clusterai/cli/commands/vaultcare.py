"""`clusterai vault doctor`, `lock`, `replace`: how a vault is kept, its key under a password, its data in a new version."""

import os
from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The vault's folder.", show_default=False)]


def doctor(
    folder: Folder,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Remove what killed processes left in memory in the clear.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Check how a vault is kept: its key, what lies in memory in the clear, its policy. Exit code 6: there is a red row."""
    from clusterai.sandbox.adapters import residue
    from clusterai.vault.adapters.doctor import examine

    if sweep:
        say.say(f"removed {residue.sweep()} folder(s)")
    return Exit.OK if say.rows(examine(folder), json) else Exit.UNTRUE


def replace(
    folder: Folder,
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="PATH",
            help="The data, as `vault init` takes it: all of it.",
            show_default=False,
        ),
    ],
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The columns, where they are others now.", show_default=False),
    ] = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put a new version of the data in a vault's place. Grants, budgets and the log go on; questions to the old version are refused."""
    from clusterai.cli import keeping

    it = keeping.opened(folder)
    options.confirm(f"Replace all rows of {it.named.name}? What was spent of budgets stays spent.", yes)
    done = keeping.replaced(it, source, schema)
    if json:
        say.emit(done)
        return
    say.tell(f"{done.name}: {done.rows} rows, {done.snapshot}")
    if done.snapshot == done.before:
        say.say("the same rows as before: nothing is listed anew")
    else:
        say.say("gateways and the chain are told when it is served again")


def move(
    folder: Folder,
    url: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="Where the encrypted pieces shall lie: s3://bucket/prefix, file:///folder. Default: in the vault's own folder.",
            show_default=False,
        ),
    ] = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Move a vault's encrypted pieces to a bucket or a folder elsewhere, or back. Keys and the journal stay; the data set is the same."""
    from clusterai.cli import keeping

    it = keeping.opened(folder)
    rows, _, size = keeping.rows_stored(it)
    before = it.named.store or str(it.store)
    options.confirm(
        f"Move {rows} rows, {size / 1e6:.1f} MB encrypted, from {before} to {url or it.store}?", yes
    )
    now = keeping.moved(it, url or "")
    if json:
        say.emit({"name": now.named.name, "store": now.named.store, "before": it.named.store})
        return
    say.tell(f"[green]moved[/] {size / 1e6:.1f} MB to {now.named.store or now.store}")
    if now.named.store:
        say.say("  whoever serves the vault needs the credentials for it in its environment")


def lock(
    folder: Folder,
    quiet: options.Quiet = False,
) -> None:
    """Put a vault's master key under the password in CLUSTERAI_KEY_PASSWORD. Whoever serves the vault needs it from then on."""
    from clusterai.cli import keeping
    from clusterai.ledger.adapters.network import BadKeyFile, lock_key
    from clusterai.runtime.adapters.config import PASSWORD

    it = keeping.opened(folder)
    password = os.environ.get(PASSWORD)
    if not password:
        raise Failure(
            "there is no password", next=f"{PASSWORD}=… clusterai vault lock {folder}", code=Exit.USAGE
        )
    try:
        lock_key(it.key_file, password)
    except BadKeyFile as error:
        raise Failure("the key can't be put under a password", str(error)) from None
    say.tell(f"{it.key_file}: under a password")
    say.say(
        "copies of the plain file, and what this disk keeps of it, aren't touched: encrypt the disk as well"
    )
