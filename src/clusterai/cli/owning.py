"""The node that runs on this machine, as its owner's commands find it: its configuration, and what it says of itself."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.joining import NodeFolder
from clusterai.cli.reach import gateway
from clusterai.cli.settings import default_node
from clusterai.node.adapters.watch import Status
from clusterai.node.adapters.willing import PauseFile
from clusterai.node.config import BadConfig, Config, load_config
from clusterai.node.doctor import running
from clusterai.protocol.ids import checksummed
from clusterai.sdk import ApiError, Unreachable
from clusterai.sdk.offers import Offers
from clusterai.sdk.offershapes import MOST_LISTED, OfferList
from clusterai.sdk.shapes import RankedNode

HEARD_S = 15.0
ENDS_S = 60.0
POLL_S = 0.1


def configuration(folder: Path | None, file: Path | None) -> Config:
    """Of the node that lives in a folder where it joined, or of a configuration by hand.

    Raises:
        Failure: there is none, or it can't be used.
    """
    path = file or NodeFolder(folder or default_node()).config
    if not path.exists():
        raise Failure(
            f"there is no node: no {path}",
            next="clusterai node join, or --config FILE of a node that was set up by hand",
            code=Exit.NOT_FOUND,
        )
    try:
        return load_config(path, os.environ)
    except BadConfig as error:
        raise Failure("the node's configuration can't be used", str(error), code=Exit.USAGE) from None


def status_of(config: Config) -> Status:
    """What the daemon says of itself.

    Raises:
        Failure: none runs.
    """
    status = running(config)
    if status is None:
        raise Failure(
            f"no node runs with the data folder {config.data}",
            next="clusterai node join, or start the service that runs it",
            code=Exit.NOT_RUNNING,
        )
    return status


def pause(config: Config) -> Status:
    """Nothing new is taken from now on, restarts included.

    Raises:
        Failure: no node runs, or it doesn't answer; nothing is changed then.
    """
    status_of(config)
    file = PauseFile(config.data)
    was = file.is_there()
    _permitted(file.pause, file.path)
    try:
        return _heard(config, lambda it: _by_owner(it))
    except Failure:
        if not was:
            file.resume()
        raise


def resume(config: Config) -> Status:
    """Work is taken again, as far as hours and the machine's use allow.

    Raises:
        Failure: no node runs, or it doesn't answer.
    """
    status_of(config)
    file = PauseFile(config.data)
    _permitted(file.resume, file.path)
    return _heard(config, lambda it: not _by_owner(it))


def drain(config: Config) -> bool:
    """End a daemon that something else started, such as systemd, once its running answers have ended; whether one ran.

    Raises:
        Failure: it doesn't end.
    """
    status = running(config)
    if status is None:
        return False
    os.kill(status.pid, signal.SIGTERM)
    ends_s = time.monotonic() + config.grace_s + ENDS_S
    while (now := running(config)) is not None and now.pid == status.pid:
        if time.monotonic() > ends_s:
            raise Failure(
                f"process {status.pid} doesn't end",
                next=f"kill -9 {status.pid}; nothing that was acknowledged is lost",
            )
        time.sleep(POLL_S)
    return True


def seen_by_gateway(
    config: Config, folder: Path | None, file: Path | None, url: str | None, data: Path | None
) -> tuple[RankedNode | None, str]:
    """What the gateway says of this node, or why there is nothing: the one that was named, joined, or runs here."""
    try:
        with gateway(data, url=_asked(folder, file, url)) as client:
            return client.node(checksummed(config.owner_address())), ""
    except Failure as error:
        return None, "; ".join(it for it in (error.what, error.why) if it)


def _asked(folder: Path | None, file: Path | None, url: str | None) -> str | None:
    known = NodeFolder(folder or default_node()).gateway
    return known.read_text().strip() if url is None and file is None and known.exists() else url


def listed_at_gateway(
    folder: Path | None, file: Path | None, url: str | None, data: Path | None
) -> OfferList | None:
    """The machines that the same gateway offers to renters, the cheapest first; None where it can't be asked."""
    try:
        with gateway(data, url=_asked(folder, file, url)) as client:
            return Offers(client).list(limit=MOST_LISTED)
    except (Failure, ApiError, Unreachable):
        return None


def _by_owner(status: Status) -> bool:
    return any(it.cause == "operator" for it in status.pauses)


def _permitted(act: Callable[[], None], path: Path) -> None:
    try:
        act()
    except OSError as error:
        raise Failure(
            f"{path} can't be changed", error.strerror or str(error), "be the user whose node it is"
        ) from None


def _heard(config: Config, done: Callable[[Status], bool]) -> Status:
    ends_s = time.monotonic() + HEARD_S
    while not done(status := status_of(config)):
        if time.monotonic() > ends_s:
            raise Failure(
                f"process {status.pid} doesn't take notice",
                "it should within a second",
                "read the node's log",
            )
        time.sleep(POLL_S)
    return status
