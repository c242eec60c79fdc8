"""Which gateway a command speaks to, with which key: the local network's where one runs, else what the environment names."""

import ipaddress
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.sdk import ApiError, Client, Unreachable
    from clusterai.sdk.vaults import Vaults

ADMIN_KEY = "admin.key"

CURES = {
    "no_provider_absent": "clusterai status; `clusterai up --model NAME` serves a model on a network of your own",
    "insufficient_quota": "clusterai account fund",
}
"""What helps, by a refusal's code, where the gateway's own words don't name it."""


@contextmanager
def gateway(
    data: Path | None, *, admin: bool = False, url: str | None = None, lists: str = ""
) -> "Generator[Client]":
    """A client whose errors are told as failures of a command.

    Args:
        admin: with the gateway's admin key, which lies in the data folder.
        url: this gateway, without a key.
        lists: the command that lists what there is, where what is asked for isn't.

    Raises:
        Failure: there is no gateway, or it refuses.
    """
    from clusterai.sdk import ApiError, Client, Unreachable

    url, key = (url, "") if url is not None else _find(data, admin)
    try:
        with Client(url, key) as client:
            yield client
    except (ApiError, Unreachable) as error:
        raise _told(error, lists) from None


@asynccontextmanager
async def vaults_at(data: Path | None, network: Path | None = None) -> "AsyncGenerator[Vaults]":
    """The same gateway for what is done over vaults. No data set comes from it that the chain doesn't vouch for.

    Args:
        network: the manifest by which the chain is asked; None: that of this machine's network.

    Raises:
        Failure: there is no gateway, it refuses, or it shows what isn't its owner's word.
    """
    from clusterai.cli.vouching import Voucher
    from clusterai.sdk.vaults import ApiError, Unreachable, Vaults

    url, key = _find(data, admin=False)
    try:
        async with Voucher.of(data, network) as vouch, Vaults(url, key, vouch=vouch) as vaults:
            yield vaults
    except (ApiError, Unreachable) as error:
        raise _told(error) from None


def _told(error: "ApiError | Unreachable", lists: str = "") -> Failure:
    """A gateway's refusal, or its absence, as a command's failure."""
    from clusterai.sdk import Unreachable

    if isinstance(error, Unreachable):
        return Failure(str(error), "", _way_to(error), Exit.NOT_RUNNING)
    code = Exit.NOT_FOUND if error.status == 404 else Exit.FAILED
    next_step = CURES.get(error.code, "") or (lists if error.status == 404 else "")
    what = error.detail.partition(": GET ")[0] if lists and next_step == lists else error.detail
    return Failure(what, f"the gateway answered {error.status} {error.code}", next_step, code)


def _way_to(away: "Unreachable") -> str:
    """What to look at where nobody answers."""
    if is_here(away.url):
        return "clusterai status"
    if "CERTIFICATE_VERIFY_FAILED" in away.why:
        return "of a certificate authority of its own: export SSL_CERT_FILE=FILE, with the certificate that its people gave you"
    return "is the address right, does that gateway run, and does a firewall let it through?"


def found(data: Path | None) -> tuple[str, str]:
    """URL and key, for clients of other kinds.

    Raises:
        Failure: there is no gateway.
    """
    return _find(data, admin=False)


def _find(data: Path | None, admin: bool) -> tuple[str, str]:
    folder = options.folder(data)
    if folder.is_held():
        state = folder.running()
        if admin:
            path = folder.of("gateway") / ADMIN_KEY
            try:
                return state.gateway, path.read_text().strip()
            except OSError as error:
                raise Failure(f"{path} can't be read", error.strerror or "", "clusterai status") from None
        return state.gateway, folder.local_account().key
    url = os.environ.get("CLUSTERAI_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
    # Of two that the environment names, the folder is only where one's own network would be.
    named = data is not None and str(data) != os.environ.get("CLUSTERAI_DATA")
    if url and not named and not admin:
        key = os.environ.get("OPENAI_API_KEY", "")
        if key and is_readable(url):
            say.say(
                f"[yellow]![/] your key goes to {url} unencrypted: who is on the way can read it, and spend by it"
            )
        return url, key
    raise Failure(
        f"no network runs in {folder.root}",
        "" if admin or named else "and OPENAI_BASE_URL names no other",
        f"clusterai up --data {folder.root}"
        + ("" if admin else ", or export OPENAI_BASE_URL and OPENAI_API_KEY of a gateway elsewhere"),
        Exit.NOT_RUNNING,
    )


def is_readable(url: str) -> bool:
    """Whether what is sent there can be read by who is on the way: plain HTTP to another machine."""
    return urlsplit(url).scheme == "http" and not is_here(url)


def is_here(url: str) -> bool:
    """Whether that is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
