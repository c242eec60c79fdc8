"""What a validator takes of outputs that a requester demands: into a store of the lease's own, which goes with the lease.

All of these stores together are bounded, apart from that of the audits: a requester and a provider that demand and deliver to each other
can't fill a validator so that it audits no more.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterai.audit.adapters.sealing import SealKey
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.jobs import ContentMissing, ContentPart, SealedPart, Segment
from clusterai.sandbox import SPARE_BYTES, BlobStore, Damaged, NoSuchBlob, Quota, StoreFull
from clusterai.validator.core.jobdelivery import Collect, Collected, Pass
from clusterai.work.batch.adapters import delivery
from clusterai.work.batch.adapters.delivery import Differs, TooLarge
from clusterai.work.batch.adapters.ends import Ends
from clusterai.work.batch.adapters.exchange import Exchange, NotHad
from clusterai.work.batch.adapters.native import Foreign
from clusterai.work.batch.core.delivery import MOST_DELIVERED_BYTES
from clusterai.work.batch.spec import decode_spec

CONTENT_BYTES = 8 * 1024**3
"""Of all demands that are open."""

Asks = Callable[[Address, Address, Digest], Callable[[Digest, int], object]]
"""(gateway, provider, lease) to what asks for a part of a content."""


class Deliveries:
    """One validator's."""

    def __init__(self, folder: Path, box: SealKey, asks: Asks) -> None:
        self._folder = folder
        self._box = box
        self._asks = asks
        self._quota = Quota(CONTENT_BYTES, SPARE_BYTES)
        self._stores: dict[Digest, BlobStore] = {}
        self._coming: dict[Digest, tuple[Address, Address, Exchange]] = {}
        """through which gateway, and from whom, a lease's outputs come; from elsewhere nothing is taken"""
        for left in folder.glob("*"):
            # Counted from the start, whether or not anybody asks for them again.
            self._store(Digest(bytes.fromhex(left.name)))

    async def collect(self, wanted: Collect) -> Collected:
        """The outputs as the requester would get them, held to the last state."""
        raw = b""
        try:
            raw = self._spec(wanted)
            store = self._store(wanted.lease)
            exchange = Exchange(store)
            self._coming[wanted.lease] = wanted.gateway, wanted.provider, exchange
            ask = self._asks(wanted.gateway, wanted.provider, wanted.lease)
            _, state = await delivery.fetch(
                Ends(store), exchange, decode_spec(raw), wanted.last, wanted.output, ask, MOST_DELIVERED_BYTES
            )
        except (NotHad, Malformed) as error:
            return Collected(wanted.lease, "missing", str(error), raw)
        except Differs as error:
            return Collected(wanted.lease, "differs", str(error), raw)
        except (TooLarge, StoreFull, NoSuchBlob, Damaged) as error:
            return Collected(wanted.lease, "unable", str(error), raw)
        finally:
            self._coming.pop(wanted.lease, None)
        return Collected(wanted.lease, "had", "", raw, state)

    def _spec(self, wanted: Collect) -> bytes:
        """The job's spec out of what was served.

        Raises:
            Malformed: it isn't sealed to this validator, or is of another job.
        """
        plain = self._box.unseal(wanted.sealed)
        if plain is None:
            raise Malformed("it isn't sealed to this validator")
        shown = canonical.decode(plain, Segment)
        if canonical.content_digest(shown.spec) != wanted.spec:
            raise Malformed("it is of another job")
        return shown.spec

    def take(self, gateway: Address, sender: Address, frame: SealedPart) -> None:
        """A part that came from somebody, through a gateway."""
        through, source, exchange = self._coming.get(Digest(frame.lease), (None, None, None))
        if (
            exchange is not None
            and (through, source) == (gateway, sender)
            and (data := self._box.unseal(frame.sealed)) is not None
        ):
            exchange.take(Digest(frame.content), frame.offset, frame.total, data)

    def give(self, wanted: Pass) -> Any:
        """The answer to who paid for it."""
        ask, store = wanted.ask, self._store(Digest(wanted.ask.lease))
        content, found = Digest(ask.content), None
        try:
            named = delivery.kept(Ends(store), decode_spec(wanted.spec), wanted.state, wanted.output)
            found = delivery.piece(store, named, wanted.state, content, ask.offset)
        except (NoSuchBlob, Damaged, Malformed, Foreign):
            found = None
        if found is None:
            return ContentMissing(ask.lease, ask.content)
        return ContentPart(ask.lease, ask.content, ask.offset, *found)

    def drop(self, lease: Digest) -> None:
        """Nothing of it is wanted any more."""
        self._coming.pop(lease, None)
        if (store := self._stores.pop(lease, None)) is not None:
            store.give_all()
            shutil.rmtree(store.root, ignore_errors=True)

    def _store(self, lease: Digest) -> BlobStore:
        if lease not in self._stores:
            self._stores[lease] = BlobStore(self._folder / lease.hex(), self._quota)
        return self._stores[lease]
