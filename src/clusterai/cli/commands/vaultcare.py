"""`clusterai vault doctor`, `lock`: whether a vault is kept as it should be, and its key under a password."""

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
