"""A vault as the process that serves it holds it: the book with its journal, the data, the seals, and the owner's desk.

    services ── permit, spend, used ──┐                            ┌── Storage: pieces, keys
    chain ───── hear ─────────────────┼─> Bookkeeper(VaultBook) ───┼── Review: outputs that wait for the owner
    owner ───── DIR/desk ── tick ─────┘                            └── listing: what gateways are told

Whoever hosts it calls `tick` about once a second, `hear` with the chain's events, and `close` at the end. Services call the rest, from any thread:
one step at a time, so fifty that spend at once can't spend more than there is.
"""

import asyncio
import contextlib
import itertools
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from clusterai.ledger.core.calls import Submit
from clusterai.protocol import canonical
from clusterai.protocol.calls import DataListing
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.ids import digest as read_digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Listing, Operation, SignedUse, dataset_id
from clusterai.vault.adapters import mounting
from clusterai.vault.adapters.bookkeeping import Bookkeeper
from clusterai.vault.adapters.cleaning import cleaned_output
from clusterai.vault.adapters.cohorts import Cohorts, Standings
from clusterai.vault.adapters.folder import BadVault, Command, Outcome, VaultFolder
from clusterai.vault.adapters.listing import numbered, signed_listing
from clusterai.vault.adapters.outputs import Outputs
from clusterai.vault.adapters.piecestore import StoreFault
from clusterai.vault.adapters.reviewing import Review
from clusterai.vault.adapters.sealing import Asked, Seals
from clusterai.vault.adapters.shelf import Shelf, shelves_key
from clusterai.vault.adapters.storage import Damaged, Manifest, Storage
from clusterai.vault.core import cleaning
from clusterai.vault.core import terms as vocabulary
from clusterai.vault.core.book import VaultBook
from clusterai.vault.core.card import vault_card
from clusterai.vault.core.disclosure import Finding
from clusterai.vault.core.mock import mock_csv
from clusterai.vault.core.noisekey import noise_commit, noise_key, noise_seed
from clusterai.vault.core.onchain import OnChain
from clusterai.vault.core.pieces import joined
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.schema import Schema
from clusterai.vault.core.terms import (
    Approve,
    Close,
    Denied,
    Deny,
    Entry,
    Permit,
    PolicySet,
    Rekeyed,
    Revoke,
    Spend,
    Spent,
    Terms,
    UseRow,
)

LIST_EVERY_S = 30.0
LOOK_EVERY_S = 30.0
"""Whether pieces that lie elsewhere can be reached; and after new keys couldn't be made, until they are tried again."""
HEARS_S = 2.0
"""After the start, until the chain's past was told."""


class Vault:
    """One vault, open. See the module's docstring.

    Attributes:
        dataset: its stable name; `snapshot` names the version.
        seal_to: the X25519 key that calls are sealed to; it stands in the card.
        card: the data card's bytes, JSON.
        cohorts: with whom it sums.
    """

    def __init__(
        self,
        folder: VaultFolder,
        served: IO[bytes],
        owner: Address,
        key: Key,
        network: Domain,
        clock: Callable[[], float] = time.time,
        submit: Callable[[Submit], None] | None = None,
        standings: Standings | None = None,
        window_s: int = 0,
        region: str = "",
    ) -> None:
        """
        Args:
            served: what keeps other processes away; closed with the vault.
            region: where this machine says that it stands; empty: it doesn't say.
        """
        master = folder.master()
        self.folder = folder
        self._served = served
        self.owner = owner
        self.network = network
        self.dataset = dataset_id(owner, folder.named.name)
        self._region = region
        self._key = key
        self._clock = clock
        self._submit = submit
        # What the chain has already is heard first.
        self._listed_at_s = clock() - LIST_EVERY_S + HEARS_S
        self._storage = Storage(folder.store, master, folder.named.store, sweep=True)
        self._reached_at_s = clock()
        self._rekey_at_s = 0.0
        if self._storage.manifest is None:
            raise BadVault(f"no data was put in: clusterai vault init {folder.root} --from FILE")
        self.schema: Schema = self._storage.manifest.schema
        self.snapshot: Digest = self._storage.manifest.snapshot
        # Once: strangers ask for it.
        self._mock = mock_csv(self.schema)
        self._noise_key = noise_key(master)
        self._shelves = shelves_key(master)
        self.cohorts = Cohorts(key, network, self.dataset, lambda: self.policy, standings)
        self._seals = Seals(master, self.dataset, network, clock())
        policy = folder.policy()
        self._policy_seen_ns = folder.policy_file.stat().st_mtime_ns
        self._book = VaultBook(Terms(self.dataset, owner, network, key.sign, policy))
        self._chain = OnChain(self.dataset, folder.named.name, window_s)
        self._books = Bookkeeper(self._book, folder.journal(master), clock, self._chain, submit)
        self.review = Review(
            self._books,
            Outputs(folder.held, master),
            self._private_texts,
            self._private_numbers,
            self._cleaned,
            clock,
        )
        self._name = self.dataset.hex()[:16]
        mounting.sweep(self._name)
        self._books.step(PolicySet(policy))
        self._books.start()

    # --- what it is ---

    @property
    def policy(self) -> Policy:
        return self._book.policy

    @property
    def seal_to(self) -> bytes:
        return self._seals.seal_to

    @property
    def name(self) -> str:
        return self.folder.named.name

    @property
    def key(self) -> Key:
        """The hot key: with it services sign what they say of single uses, such as a share in a secure sum."""
        return self._key

    @property
    def rows(self) -> int:
        assert self._storage.manifest is not None
        return self._storage.manifest.rows

    @property
    def key_epoch(self) -> int:
        return self._book.key_epoch

    @property
    def card(self) -> bytes:
        readme = self.folder.readme.read_bytes() if self.folder.readme.exists() else b""
        return vault_card(
            readme, self.name, self.schema, self.policy, self.snapshot, self.seal_to, self.dataset
        )

    def listing(self) -> DataListing:
        """What gateways are told: the same, to the byte, as long as nothing in it changes."""
        card = self.card
        said = Listing(
            self.dataset,
            self.owner,
            canonical.content_digest(card),
            self.snapshot,
            self.policy.digest(),
            self.noise_commit,
            0,
        )
        said = numbered(said, self.folder.state / "listing", self._clock())
        return signed_listing(said, card, self._key, self.network)

    @property
    def now_s(self) -> float:
        return self._clock()

    def mock(self) -> bytes:
        """The mock twin, as CSV."""
        return self._mock

    # --- calls ---

    def opened(self, sender: Address, body: bytes, order: Digest | None = None) -> Asked:
        """A sealed call's plain bytes and who signed it. `sender` is what the gateway says, and isn't believed.

        Args:
            order: digest of the order that brought it, where one did: the same call counts again for this order, and for no other.

        Raises:
            Denied: malformed, dataset, signature, expired, replayed, busy.
        """
        with self._books.lock:
            return self._seals.opened(body, self._clock(), order)

    def sealed(self, to: bytes | Asked, data: bytes) -> bytes:
        """An answer to whoever asked; or, to an X25519 key such as `Permit.seal_to`, what it can tell to come from this vault."""
        return self._seals.sealed(to, data)

    # --- what services ask ---

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest) -> Permit:
        """
        Raises:
            Denied: unknown, requester, pending, revoked, expired, operation, other_code, spent, anonymise, residency.
        """
        self.check_residency(operation)
        with self._books.lock:
            permit = self._book.permit(grant, signer, operation, code, self._clock())
        cleaning.check(self.schema, self.policy, operation)
        return permit

    def check_residency(self, operation: int) -> None:
        """Also of grants that were given before the policy said so.

        Raises:
            Denied: residency.
        """
        policy = self.policy
        where = ", ".join(policy.residency)
        if policy.residency and operation == Operation.COPY:
            raise Denied("residency", f"these rows stay in {where}: no copy of them is given")
        if not policy.stays_in(self._region):
            raise Denied(
                "residency", f"these rows stay in {where}, and this machine says it stands elsewhere"
            )

    def spend(self, grant: Digest, order: Digest, epsilon_micro: int, delta_pico: int = 0) -> Spent:
        """Durable before it returns; again for the same order, the same answer and nothing more spent.

        Raises:
            Denied: budget, delta, spent and all that ends a grant; `detail` says what is left. `unreachable`: what is to be computed on can't be read
                now, and nothing was spent.
        """
        try:
            self._storage.reach()
        except (StoreFault, Damaged):
            # Why, its owner's log says; a requester learns no place.
            raise Denied(
                "unreachable", "the vault can't read its data now, and nothing was spent: ask again later"
            ) from None
        return self._books.step(Spend(grant, order, epsilon_micro, delta_pico))

    def used(self, order: Digest, result: Digest) -> SignedUse:
        """Close a use: a leaf of the log, for the requester to keep. `result` is zeros where nothing left the vault.

        Raises:
            Denied: unknown, closed.
        """
        return self._books.step(Close(order, result))

    def code(self, grant: Digest) -> bytes:
        """The program that a grant is for, as the owner read it; empty where there is none."""
        with self._books.lock:
            entry = self._book.entry_of(grant)
        return b"" if entry is None else entry.code

    def columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Whole columns; `vault.core.pieces` says of which types.

        Raises:
            KeyError: there is no such column.
        """
        for name in names:
            self.schema.column(name)
        return joined(self.schema, self._storage.pieces(names), names)

    def _cleaned(self, output: bytes) -> tuple[bytes, dict[str, int]]:
        how = self.policy.anonymise_outputs
        return cleaned_output(output, how) if how else (output, {})

    def _private_texts(self) -> Iterable[Any]:
        names = [it.name for it in self.schema.columns if it.kind == "text" and it.access == "private"]
        return itertools.chain.from_iterable(column.tolist() for column in self.columns(names).values())

    def _private_numbers(self) -> Iterable[list[Any]]:
        for it in self.schema.columns:
            if it.kind in ("int", "float") and it.access == "private":
                yield self.columns([it.name])[it.name].tolist()

    @contextlib.asynccontextmanager
    async def mount(self) -> AsyncGenerator[Path]:
        """A folder in memory with the data in the clear (`adapters.mounting`), gone when the block ends.

        Raises:
            NoMemoryFolder.
        """
        folder = await asyncio.to_thread(mounting.lay_out, self._name, self.schema, self._storage.pieces())
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def noise_seed(self, order: Digest, beacon: bytes) -> bytes:
        """32 bytes that nobody could choose and the key's holder can make again, where the beacon came after the order."""
        return noise_seed(self._noise_key, order, beacon)

    @property
    def noise_commit(self) -> Digest:
        """keccak of the key that all noise is drawn from; an auditor who is given the key checks it against this."""
        return noise_commit(self._noise_key)

    def shelf(self, service: str) -> Shelf:
        """Where a service of this name keeps what it must know after a kill."""
        return Shelf(self.folder.state / service, self._shelves)

    def content_key(self) -> tuple[int, bytes]:
        """The epoch, and the key that its pieces open with: what a sold copy comes with, sealed to its buyer."""
        return self._storage.key()

    def copied(self) -> tuple[Manifest, bytes]:
        """What a copy consists of and the key that opens it, of one epoch."""
        return self._storage.copied()

    def stored_pieces(self) -> tuple[tuple[Digest, int], ...]:
        """Address and size of each encrypted piece, in order; `stored` gives it."""
        assert self._storage.manifest is not None
        return tuple((Digest(it.address), it.size) for it in self._storage.manifest.pieces)

    def stored(self, address: Digest) -> bytes:
        return self._storage.stored(address)

    def hold(self, grant: Digest, order: Digest, output: bytes) -> tuple[Finding, ...]:
        """Keep what a program made until the owner has read it: see `Review`."""
        return self.review.hold(grant, order, output)

    # --- what the desk and the owner ask ---

    def ask(self, event: vocabulary.AskedFor) -> Entry:
        """
        Raises:
            Denied.
        """
        cleaning.check(self.schema, self.policy, event.signed.request.operation)
        return self._books.step(event)

    def approve(self, request: Digest, note: str = "") -> Entry:
        with self._books.lock:
            entry = self._book.entries.get(request)
        if entry is not None:
            cleaning.check(self.schema, self.policy, entry.signed.request.operation)
        return self._books.step(Approve(request, note))

    def deny(self, request: Digest, note: str = "") -> Entry:
        return self._books.step(Deny(request, note))

    def revoke(self, grant: Digest, reason: int) -> Entry:
        """From the moment it returns nothing is permitted under this grant, whatever the chain is doing; the next `tick` keys all anew."""
        return self._books.step(Revoke(grant, reason))

    def entries(self) -> list[Entry]:
        with self._books.lock:
            return list(self._book.entries.values())

    def why_waiting(self, entry: Entry) -> str:
        with self._books.lock:
            return self._book.why_waiting(entry)

    def uses(self) -> list[UseRow]:
        with self._books.lock:
            return self._book.uses()

    @property
    def anchored(self) -> int:
        return self._book.anchored

    def left_micro(self, requester: Address) -> int:
        """ε that the policy leaves to a requester over all its grants."""
        with self._books.lock:
            policy, book = self.policy, self._book
            return max(
                0,
                min(
                    policy.requester_epsilon_micro - book.spent_by(requester),
                    policy.total_epsilon_micro - book.total_spent_micro,
                ),
            )

    # --- what its host calls ---

    def tick(self) -> None:
        """About once a second: time, the owner's commands, a policy that was edited, keys that are due.

        Raises:
            BadVault, BadCard, Damaged: the message is for the owner; all else goes on.
        """
        self._read_policy()
        for name, command in self.folder.commands():
            self.folder.answer(name, self._carried_out(command))
        self._books.tick()
        self._list()
        self._books.close_sales(self._clock())
        if self._chain.barred:
            raise BadVault(self._chain.barred)
        names = cleaning.left_standing(self.schema, self.policy)
        if names:
            raise BadVault(
                f"the policy wants texts anonymised, and {', '.join(names)[:500]} isn't: clusterai vault replace, with the data as it was given; "
                "until then no program, training or copy gets it"
            )
        if not self.policy.stays_in(self._region):
            raise BadVault(
                f"the policy keeps the rows in {', '.join(self.policy.residency)}, and this machine says it stands in {self._region}: "
                "serve the vault elsewhere, or change residency; until then every use is refused"
            )
        # Last: where its place is away or full, all else goes on.
        self._rekey()
        if self._clock() - self._reached_at_s >= LOOK_EVERY_S:
            self._storage.reach()
            self._reached_at_s = self._clock()

    def _rekey(self) -> None:
        """Without the lock: it may read and write gigabytes, and meanwhile services read and spend."""
        epoch = self._books.wanted_epoch
        if epoch is not None and self._clock() >= self._rekey_at_s:
            self._rekey_at_s = self._clock() + LOOK_EVERY_S
            self._storage.rekey(epoch)
            self._rekey_at_s = 0.0
            self._books.wanted_epoch = None
            self._books.step(Rekeyed(epoch))

    def hear(self, event: Any) -> None:
        """An event of the chain, or what became of a call."""
        self._books.hear(event)

    def _list(self) -> None:
        """The chain shall say what gateways are told; tried again as long as it doesn't."""
        if self._submit is None or self._clock() - self._listed_at_s < LIST_EVERY_S:
            return
        self._listed_at_s = self._clock()
        said = canonical.decode(self.listing().listing, Listing)
        submit = self._chain.listing(said, self.policy)
        if submit is not None:
            self._submit(submit)

    def close(self) -> None:
        self._books.close()
        self._storage.close()
        self._served.close()
        mounting.sweep(self._name)

    def _carried_out(self, command: Command | None) -> Outcome:
        if command is None:
            return Outcome(False, code="malformed", detail="the command can't be read")
        target = read_digest(command.target)
        try:
            match command.act:
                case "approve":
                    entry = self.approve(target, command.note)
                case "deny":
                    entry = self.deny(target, command.note)
                case "revoke":
                    entry = self.revoke(target, command.reason)
                case "release":
                    self.review.release(target)
                    return Outcome(True, state="released")
                case "withhold":
                    self.review.withhold(target, command.note)
                    return Outcome(True, state="withheld")
        except Denied as no:
            return Outcome(False, code=no.code, detail=no.detail)
        return Outcome(True, state=entry.state)

    def _read_policy(self) -> None:
        """A file that can't be read leaves the policy as it was."""
        with contextlib.suppress(OSError, BadVault):
            stamp_ns = self.folder.policy_file.stat().st_mtime_ns
            if stamp_ns != self._policy_seen_ns:
                self._policy_seen_ns = stamp_ns
                self._books.step(PolicySet(self.folder.policy()))


def open_vault(
    folder: Path,
    owner: Address,
    key: Key,
    domain: Domain,
    clock: Callable[[], float] = time.time,
    submit: Callable[[Submit], None] | None = None,
    standings: Standings | None = None,
    window_s: int = 0,
    region: str = "",
) -> Vault:
    """Open a vault to serve it.

    Args:
        owner: whose data it is; with the vault's name it makes the data set's id.
        key: the hot key that signs uses and listings.
        domain: the network's.
        submit: takes calls to the chain, with the hot key; None where no chain keeps grants: then they hold at once.
        standings: asks the chain about others' vaults; None where there is none.
        window_s: the network's audit window: a copy that was sold is paid after it.
        region: where this machine says that it stands; empty: it doesn't say.

    Raises:
        NoVault, BadVault, WrongKey: the message says what to do.
    """
    place = VaultFolder(folder)
    served = place.serve()
    try:
        return Vault(place, served, owner, key, domain, clock, submit, standings, window_s, region)
    except BaseException:
        served.close()
        raise
