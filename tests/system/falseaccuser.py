"""A villain: of jobs called `accused`, the auditor that is drawn first says another result than it came to, and accuses.

Run in place of `python -m clusterai.validator`. Drawn second, or seated as a referee, it is honest, so that a panel made of
nothing but these has one liar for each such job, whoever is drawn.
"""

import sys
from typing import Any

from clusterai.ledger.core import events
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.validator import main as daemon
from clusterai.validator.__main__ import main
from clusterai.validator.adapters.jobaudits import JobAudits

NAME = "accused"


class FalseAccuser(JobAudits):
    def hear(self, event: Any) -> bool:
        if isinstance(event, events.AuditorDrawn) and event.attempt == 0 and event.auditor == self._me:
            self.__dict__.setdefault("first", set()).add(event.lease)
        return super().hear(event)

    async def _again(self, spec: Any, wanted: Any, shown: Any) -> Digest:
        result = await super()._again(spec, wanted, shown)
        lies = spec.name == NAME and wanted.lease in self.__dict__.get("first", ())
        return Digest(keccak(b"another" + result)) if lies else result


if __name__ == "__main__":
    daemon.JobAudits = FalseAccuser
    sys.exit(main())
