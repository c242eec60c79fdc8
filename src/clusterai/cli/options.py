"""Options that mean the same in every command, and bundles of those that go together."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import DataFolder
from clusterai.cli.settings import default_data

if TYPE_CHECKING:
    from clusterai.ledger.adapters.network import Network as At
    from clusterai.protocol.ids import Digest
    from clusterai.protocol.signing import Key

R = TypeVar("R")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="CLUSTERAI_DATA",
        metavar="DIR",
        help="Folder of the network. Default: clusterai/local in your data folder.",
        show_default=False,
    ),
]
Network = Annotated[
    Path | None,
    typer.Option(
        "--network",
        envvar="CLUSTERAI_NETWORK",
        metavar="FILE",
        help="The network's manifest, from somebody else than the gateway: by it the chain is asked whose data this is. Default: that of this "
        "machine's network.",
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Key that signs; the password of a keystore is CLUSTERAI_KEY_PASSWORD. Default: the local network's faucet.",
        show_default=False,
    ),
]
NetworkDigest = Annotated[
    str,
    typer.Option(
        "--network-digest",
        metavar="0x…",
        help="The digest of the network's manifest: get it from somebody you trust.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout.")]
NodeFolder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        help="Where the node lives. Default: clusterai/node in your data folder.",
        show_default=False,
    ),
]
NodeConfig = Annotated[
    Path | None,
    typer.Option("--config", help="The file of a node that was set up by hand.", show_default=False),
]
OwnerKey = Annotated[
    Path | None,
    typer.Option(
        help="The owner's key file; a keystore's password comes from CLUSTERAI_KEY_PASSWORD. Default: owner.key in the folder.",
        show_default=False,
    ),
]


def _hush(on: bool) -> bool:
    say.be_quiet(on)
    return on


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the answer alone.", callback=_hush),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; go on.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Options that a command takes together: as one parameter of a command that is `spread`."""


class Chain(Bundle, frozen=True, kw_only=True):
    """Which network's contracts."""

    data: Data = None
    network: Network = None

    def at(self) -> "At":
        """
        Raises:
            Failure: there is no network to speak of.
        """
        from clusterai.cli.staking import manifest

        return manifest(self.network, folder(self.data))


class Signed(Chain, frozen=True, kw_only=True):
    """And whose key signs."""

    key: KeyFile = None

    def signer(self, default: str = "treasury.key") -> "Key":
        """
        Args:
            default: of a local network's keys.

        Raises:
            Failure: there is no such key.
        """
        from clusterai.cli.staking import signer

        return signer(self.key, folder(self.data), default)


class Answer(Bundle, frozen=True, kw_only=True):
    json: Json = False
    quiet: Quiet = False

    def give(self, told: object, words: str) -> None:
        """One thing, to programs or to a person."""
        if self.json:
            say.emit(told)
        else:
            say.tell(words)


def spread(command: Callable[..., R]) -> Callable[..., R]:
    """The command as typer is to see it: each parameter that is a `Bundle` stands there as its options."""
    signature = inspect.signature(command, eval_str=True)
    bundles: dict[str, dict[str, inspect.Parameter]] = {}
    seen: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Bundle):
            bundles[name] = dict(inspect.signature(parameter.annotation, eval_str=True).parameters)
            seen += bundles[name].values()
        else:
            seen.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def called(**given: Any) -> R:
        for name, fields in bundles.items():
            given[name] = signature.parameters[name].annotation(**{it: given.pop(it) for it in fields})
        return command(**given)

    called.__dict__["__signature__"] = signature.replace(parameters=seen)
    return called


def folder(data: Path | None) -> DataFolder:
    return DataFolder(data or default_data())


def pinned(digest: str | None) -> "Digest | None":
    """
    Raises:
        Failure: it isn't one.
    """
    from clusterai.protocol import ids

    try:
        return None if digest is None else ids.digest(digest)
    except ids.BadId as error:
        raise Failure(
            "--network-digest isn't one", str(error), "it is 0x and 64 hex digits", Exit.USAGE
        ) from None


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told `--yes`.

    Raises:
        typer.Abort: the person said no, or nobody is there to ask.
    """
    if not yes:
        typer.confirm(question, abort=True, err=True)
