"""A villain: of jobs with these names, what a node hands over. Run in place of `python -m clusterai.node`.

It does all jobs rightly. Of `withheld` nobody gets the outputs, of `refused` the requester doesn't, and of `swapped` it commits
to another listing than its last state gives.
"""

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.node.__main__ import main
from clusterai.node.adapters import lending
from clusterai.node.adapters.jobs import Jobs
from clusterai.node.core.jobbook import JobBook
from clusterai.node.core.joblease import Perform, Performed
from clusterai.node.core.jobshowing import Serve
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.jobs import AskContent, ContentMissing
from clusterai.protocol.keccak import keccak

ALL, REQUESTER, SWAPPED = "withheld", "refused", "swapped"


class Withholder(Jobs):
    def __init__(
        self, config: Any, folder: Any, me: Address, hear: Callable[[Any], None], *more: Any
    ) -> None:
        self._names: dict[Digest, str] = {}

        def swapped(event: Any) -> None:
            if isinstance(event, Performed) and self._names.get(event.lease) == SWAPPED:
                event = msgspec.structs.replace(event, output=Digest(keccak(event.output)))
            hear(event)

        super().__init__(config, folder, me, swapped, *more)

    def perform(self, effect: Perform) -> None:
        self._names[effect.lease] = effect.spec.name
        super().perform(effect)

    def heard(self, gateway: Address, frame: Any, book: JobBook) -> bool:
        held = book.leases.get(Digest(frame.lease)) if isinstance(frame, AskContent) else None
        if held is not None and held.done is not None and held.spec.name in (ALL, REQUESTER):
            self._send(gateway, ContentMissing(frame.lease, frame.content))
            return True
        return super().heard(gateway, frame, book)

    def serve(self, effect: Serve, book: JobBook) -> None:
        held = book.leases[Digest(effect.ask.lease)]
        if held.done is None or held.spec.name != ALL or effect.ask.segment <= len(held.done.units):
            super().serve(effect, book)


if __name__ == "__main__":
    lending.Jobs = Withholder
    sys.exit(main())
