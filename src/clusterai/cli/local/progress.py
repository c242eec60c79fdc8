"""What is going on, while it takes long: one line that moves where a person watches, one line a change elsewhere."""

from types import TracebackType
from typing import TYPE_CHECKING

from clusterai.cli import say

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    def __init__(self) -> None:
        self._shown = ""
        self._status: Status | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, doing: str) -> None:
        if doing == self._shown or not doing or say.is_quiet():
            return
        self._shown = doing
        if not say.person():
            say.say(f"{doing}…")
            return
        if self._status is None:
            self._status = say.console(stderr=True).status(doing)
            self._status.start()
        self._status.update(doing)

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
