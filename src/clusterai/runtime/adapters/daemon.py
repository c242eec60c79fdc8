"""How every daemon begins and ends: settings, log, signals, chores beside the body, and errors that say what to do.

    main ─ settings ─ log ─> run(config): async with chores(follow, send, tick, …):
                                              open doors
                                              await stop.wait()      SIGTERM, SIGINT
                                              wind down              what runs may end
                                          the chores are cancelled, files are closed

A chore that fails ends the daemon, and all other chores with it: half a daemon is worse than none.
"""

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import structlog

from clusterai.runtime.adapters.config import BadConfig, Daemon, load, prefix, scalars
from clusterai.runtime.adapters.journal import JournalLost

EXIT_CONFIG = 78
"""`EX_CONFIG` of sysexits.h: starting again won't help before somebody changed something."""
EXIT_FULL = 75
"""`EX_TEMPFAIL` of sysexits.h: whoever supervises starts it again, until there is room."""
UNWRITTEN = (JournalLost, sqlite3.Error, OSError)

D = TypeVar("D", bound=Daemon)


@contextlib.asynccontextmanager
async def chores(*work: Coroutine[Any, Any, None]) -> AsyncGenerator[asyncio.TaskGroup]:
    """Run beside the body, and end with it.

    Raises:
        BaseExceptionGroup: one failed; the body and the others are cancelled.
    """
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(chore) for chore in work]
        yield tasks
        for task in running:
            task.cancel()


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    loop = asyncio.get_running_loop()

    def told(_: int, __: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except (
            NotImplementedError
        ):  # Windows' loops have no handlers; the next turn of the loop sees the event
            signal.signal(number, told)


def log_json(level: str) -> None:
    """One JSON object a line on stderr. Nothing secret is ever handed to the log: keys print as their addresses."""
    # Other libraries speak when something is wrong.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s %(levelname)s %(message)s")
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def main(
    name: str,
    kind: type[D],
    run: Callable[[D], Coroutine[Any, Any, None]],
    named: tuple[type[Exception], ...],
    check: Callable[[D], int] | None = None,
) -> int:
    """`python -m clusterai.<name>`; the exit code.

    Args:
        named: errors whose message says what to do; anything else but a full disk is a fault of ours and keeps its traceback.
        check: what `--check` does instead.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m clusterai.{name}",
        allow_abbrev=False,
        description=f"Run a {name}. Every setting below may also stand in its file, or in {prefix(name)}<SETTING>.",
    )
    parser.add_argument("--config", type=Path, help=f"TOML or JSON; default: [{name}] of ./clusterai.toml")
    if check is not None:
        parser.add_argument(
            "--check", action="store_true", help="say whether it could work, as JSON, and end"
        )
    for field in scalars(kind):
        parser.add_argument(f"--{field.replace('_', '-')}", metavar="VALUE", default=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    path, wants_check = given.pop("config"), given.pop("check", False)
    named = (*named, BadConfig)
    try:
        config = load(kind, name, path, os.environ, given)
        if check is not None and wants_check:
            return check(config)
        log_json(config.log_level)
        _run(run(config))
    except (*named, *UNWRITTEN, BaseExceptionGroup) as error:
        leaves = list(_leaves(error))
        full = [_is_full(leaf) for leaf in leaves]
        if not all(one or isinstance(leaf, named) for leaf, one in zip(leaves, full, strict=True)):
            raise
        for leaf in leaves:
            print(f"error: {leaf}", file=sys.stderr)
        if any(full):
            print("make room on this machine's disk; what was written is kept", file=sys.stderr)
        return EXIT_FULL if any(full) else EXIT_CONFIG
    return 0


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Errors of the module itself have no code.
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return isinstance(error, JournalLost) or code == sqlite3.SQLITE_FULL


def _run(life: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(life)
    else:
        uvloop.run(life)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(one)
    else:
        yield error
