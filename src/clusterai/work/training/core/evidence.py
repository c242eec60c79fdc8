"""Whom a run does without: what its rounds' groups say of single vaults.

Two witnesses. A group that is beyond its bounds proves that one of its members cheated, and the draws of many rounds say which (`suspects`).
What moves the groups within the bounds says who doesn't move the model as the others do (`following`): who skips training, sends noise, an old
update, or the opposite.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from clusterai.protocol.ids import Address
from clusterai.vault.core.secagg.following import Following
from clusterai.vault.core.secagg.suspects import Suspects


class Group(msgspec.Struct, frozen=True):
    """One group's sum, as the lineage card has it.

    Attributes:
        members: in the sum.
        transcript: digest of the secure aggregation's signed transcript.
        verdict: of `grouping`.
        worth: by the app's metrics on rows that no vault gave: see `worth`. Empty where it wasn't asked for.
    """

    members: tuple[bytes, ...]
    transcript: bytes
    verdict: str = ""
    worth: dict[str, float] = {}


class Evidence:
    """Feed it each round of training; ask who is named."""

    def __init__(self) -> None:
        self._suspects, self._following = Suspects(), Following()

    def saw(self, groups: Sequence[Group], products: tuple[tuple[float, ...], ...]) -> None:
        """
        Args:
            products: of the updates of those groups that are neither beyond nor empty.
        """
        bad = tuple(at for at, group in enumerate(groups) if group.verdict == "beyond")
        members = tuple(tuple(Address(who) for who in group.members) for group in groups)
        self._suspects.saw(members, bad, proof=True)
        good = tuple(
            who for who, group in zip(members, groups, strict=True) if group.verdict in ("", "apart")
        )
        if len(good) == len(products):
            self._following.saw(good, np.array(products, np.float64))

    def named(self) -> dict[Address, str]:
        """Most certain first."""
        proven = dict.fromkeys(self._suspects.excluded(), "was in every group that broke its bounds")
        return {**proven, **{who: why for who, why in self._following.named().items() if who not in proven}}
