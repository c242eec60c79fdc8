"""Who takes part, and who gets the work: participants as the chain knows them, the routing among them, and placement.

The room exists so that every daemon answers "who is this key, and may it?" and "which machines?" the same way, from
chain events and signed offers alone. It refuses to talk to anyone: it reads events and gives answers.
"""

from clusterai.market.core.directory import Directory, Participant
from clusterai.protocol.ids import Role

__all__ = ["Directory", "Participant", "Role"]
