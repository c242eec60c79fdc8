"""Who may do what with whose data, as the chain tells it: grants, what became of them, and the logs that vaults anchored.

A vault asks before each use, a requester before each request. Neither is paid by what stands here: a licence that isn't live is refused before any order
is taken. `time` is the chain's, as `Projection.time_s` has it.
"""

import msgspec

from clusterai.ledger.core.events import (
    AccessGranted,
    Block,
    BreachProven,
    DatasetListed,
    Event,
    GrantEnded,
    LicenceMoved,
    LogAnchored,
    RolledBack,
    Slashed,
)
from clusterai.ledger.core.projection import Projection
from clusterai.ledger.core.vault_calls import DatasetTerms
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.vaults import Grant, Revoked


class Held(msgspec.Struct, frozen=True):
    """A grant and who holds its token; zero once it is burnt. `ended` says why, None while nobody ended it."""

    terms: Grant
    holder: Address
    transferable: bool
    ended: Revoked | None = None


class Listed(msgspec.Struct, frozen=True):
    """A dataset as it stands on chain; frozen once a breach was proven."""

    owner: Address
    terms: DatasetTerms
    frozen: bool = False


class Licences:
    """Tables over the events of Vaults that can go back when blocks are undone."""

    def __init__(self) -> None:
        self._chain = Projection()
        self._grants: dict[Digest, Held] = {}
        self._datasets: dict[Digest, Listed] = {}
        self._anchors: dict[Digest, LogAnchored] = {}
        self._barred: dict[Address, bool] = {}

    def apply(self, event: Event, now_s: float = 0.0) -> None:
        """
        Raises:
            TooDeep: a rollback past the undo log.
        """
        put = self._chain.put
        match event:
            case Block() | RolledBack():
                self._chain.apply(event, now_s)
            case DatasetListed(dataset, owner, _, terms):
                put(self._datasets, dataset, Listed(owner, terms))
            case AccessGranted(grant, _, requester, terms, transferable):
                put(self._grants, grant, Held(terms, requester, transferable))
            case GrantEnded(grant, _, reason) if grant in self._grants:
                ended = Revoked(reason)
                changed = msgspec.structs.replace(self._grants[grant], holder=ZERO_ADDRESS, ended=ended)
                put(self._grants, grant, changed)
            case LicenceMoved(grant, _, to) if grant in self._grants:
                put(self._grants, grant, msgspec.structs.replace(self._grants[grant], holder=to))
            case LogAnchored(dataset):
                put(self._anchors, dataset, event)
            case BreachProven(dataset) if dataset in self._datasets:
                put(self._datasets, dataset, msgspec.structs.replace(self._datasets[dataset], frozen=True))
            case Slashed(owner):
                put(self._barred, owner, True)
            case _:
                pass

    def live(self, grant: Digest, now_s: float) -> Held | None:
        """The grant if it may be used at `now_s`, as `Vaults.isLive` has it for its holder; else None."""
        held = self._grants.get(grant)
        if held is None or held.ended is not None or now_s > held.terms.expires_s:
            return None
        listed = self._datasets.get(Digest(held.terms.dataset))
        if listed is None or listed.frozen or self.is_barred(listed.owner):
            return None
        return held

    def may_use(self, grant: Digest, who: Address, now_s: float) -> bool:
        """Whether `who` holds the grant's token, and it is live."""
        held = self.live(grant, now_s)
        return held is not None and held.holder == who

    def grant(self, grant: Digest) -> Held | None:
        """As it was given, whatever became of it."""
        return self._grants.get(grant)

    def of(self, dataset: Digest) -> list[tuple[Digest, Held]]:
        """All grants of a dataset, in the order of the chain."""
        return [(one, held) for one, held in self._grants.items() if held.terms.dataset == dataset]

    def listed(self, dataset: Digest) -> Listed | None:
        return self._datasets.get(dataset)

    def is_barred(self, owner: Address) -> bool:
        return self._barred.get(owner, False)

    def anchor(self, dataset: Digest) -> LogAnchored | None:
        """The newest log that its vault anchored."""
        return self._anchors.get(dataset)

    def time_s(self, now_s: float) -> float:
        """The chain's time, as one believes it."""
        return self._chain.time_s(now_s)
