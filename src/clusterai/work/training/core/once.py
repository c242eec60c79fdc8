"""One sum of each round, however often it has to be begun.

A round's vector, with its noise in it, is drawn once and kept. A second sum of it that had other members could be subtracted from the first, so
there mustn't be two that open. A sum opens when a quorum has endorsed one roll of it, and a vault endorses:

    cohort   only in sums among the same vaults as the first that it was asked for
    among    only rolls with the same members as the first that it endorsed, in whichever of those sums

Two rolls of one cohort that both get a quorum's endorsements have an honest vault in common, as long as no more than
`graph.colluders_tolerated` conspire with the requester: it is the argument by which one sum has one roll. So the rolls' members are the same, and both sums
are the same number. Begun again after vaults died, a round costs no ε then: nothing is learnt that the first sum wouldn't have told.

Groups are drawn anew for each sum, and one that isn't over the same members has no such quorum: there, a vector goes into one sum.
"""

import msgspec

from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Address
from clusterai.vault.core.secagg.messages import Spec

MOST_SUMS = 16
"""That a vault begins for one round."""


class Once(msgspec.Struct):
    """What a vault did with the vector of one round; durable before anything of it leaves.

    Attributes:
        cohort: digest of those among whom it may be summed; empty before the first sum.
        sums: those that were begun, as their rounds: a process that was started anew has no keys of theirs.
        among: digest of the members of the roll that was endorsed; empty before.
    """

    cohort: bytes = b""
    sums: tuple[bytes, ...] = ()
    among: bytes = b""

    def begin(self, spec: Spec) -> str | None:
        """Why not."""
        name, cohort = bytes(spec.round()), _cohort(spec)
        if self.cohort not in (b"", cohort):
            return "this round is summed among others already"
        if name in self.sums:
            return "the keys of this sum died with the process that had them"
        if len(self.sums) >= MOST_SUMS:
            return f"{MOST_SUMS} sums of this round were begun"
        self.cohort, self.sums = cohort, (*self.sums, name)
        return None

    def endorse(self, spec: Spec, members: tuple[Address, ...]) -> str | None:
        """Why not."""
        among = content_digest(b"".join(sorted(members)))
        if self.cohort != _cohort(spec):
            return "this round is summed among others already"
        if self.among not in (b"", among):
            return "a sum of this round with other members was endorsed already"
        self.among = among
        return None


def _cohort(spec: Spec) -> bytes:
    return spec.round() if spec.groups > 1 else content_digest(b"cohort" + b"".join(spec.cohort))
