"""Where a requester's identity lies on this machine: one for all that it asks of vaults, unless another file is named."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.sdk.identity import Identity

IdentityFile = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="FILE",
        envvar="CLUSTERAI_IDENTITY",
        help="Your requester's key. Default: in your configuration folder.",
        show_default=False,
    ),
]


def usual_identity() -> Path:
    from platformdirs import user_config_path

    return user_config_path("clusterai") / "identity.json"


def identity_at(path: Path | None) -> "Identity":
    """The one at `path`, or the usual one; made if it isn't there.

    Raises:
        Failure: it can't be used.
    """
    from clusterai.sdk.identity import BadIdentity, Identity

    try:
        return Identity.load_or_make((path or usual_identity()).expanduser())
    except (BadIdentity, OSError) as error:
        raise Failure(
            "your identity can't be used", str(error), "name another --identity", Exit.USAGE
        ) from None


def asked_at(path: Path | None) -> Path:
    """Which vaults were asked in this identity's name: a note beside it, for `clusterai data grants`."""
    return (path or usual_identity()).expanduser().with_suffix(".asked")
