"""How a command fails: what happened, why, and what to type next; and the exit codes, which scripts may rely on."""

import platform
from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    """it was tried and didn't work"""
    USAGE = 2
    """the command line is wrong"""
    NOT_RUNNING = 3
    """there is no network in this data folder, or it doesn't answer"""
    BUSY = 4
    """the data folder or a port is in use"""
    NOT_FOUND = 5
    """no such receipt, model, account, node"""
    UNTRUE = 6
    """a check was carried out and what was checked is wrong: fraud, a red row of the doctor"""
    INTERRUPTED = 130


class Failure(Exception):
    """`what` happened, `why` if that is known, and the `next` command or act that helps."""

    def __init__(self, what: str, why: str = "", next: str = "", code: Exit = Exit.FAILED) -> None:  # noqa: A002  what people read
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next
        self.code = code

    def lines(self) -> list[str]:
        parts = [f"error: {self.what}"]
        if self.why:
            parts.append(f"  why:  {self.why}")
        if self.next:
            parts.append(f"  next: {self.next}")
        return parts


def needs_unix(what: str) -> None:
    """
    Raises:
        Failure: daemons can't be started and told to drain here.
    """
    if platform.system() == "Windows":
        raise Failure(
            f"{what} needs Linux or macOS", "its daemons are told by Unix's signals", "WSL 2 on Windows"
        )
