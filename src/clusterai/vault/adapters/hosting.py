"""A vault as the process that serves it holds it: the book with its journal, the data, the seals, and the owner's desk.

    services ── permit, spend, used ──┐                      ┌── Storage (pieces, keys)
    chain ───── hear ─────────────────┼─> Driver(VaultBook) ─┼── submit (grants, anchors)
    owner ───── DIR/desk ── tick ─────┘      journal         └── Gave, No: the caller's answer

Whoever hosts it calls `tick` about once a second, `hear` with the chain's events, and `close` at the end. Services call the rest, from any thread:
one step at a time, so fifty that spend at once can't spend more than there is.
"""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import shutil
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
from blake3 import blake3
from numpy.typing import NDArray

from clusterai.ledger.core.calls import Submit
from clusterai.protocol import canonical
from clusterai.protocol.calls import DataListing
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.ids import digest as read_digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Listing, SignedUse, dataset_id
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.machine import Tick
from clusterai.vault.adapters import mounting
from clusterai.vault.adapters.folder import (
    BadVault,
    Command,
    Outcome,
    VaultFolder,
    read_records,
    write_aside,
)
from clusterai.vault.adapters.outputs import Output, Outputs
from clusterai.vault.adapters.sealing import Asked, Seals
from clusterai.vault.adapters.storage import Manifest, Storage
from clusterai.vault.core import terms as vocabulary
from clusterai.vault.core.book import VaultBook
from clusterai.vault.core.card import vault_card
from clusterai.vault.core.disclosure import MOST_OUTPUT_BYTES, Finding, examine
from clusterai.vault.core.mock import mock_csv
from clusterai.vault.core.onchain import OnChain
from clusterai.vault.core.pieces import joined
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.schema import Schema
from clusterai.vault.core.terms import (
    Anchor,
    Anchored,
    Approve,
    Close,
    Confirmed,
    Denied,
    Deny,
    Entry,
    Gave,
    Issue,
    No,
    Permit,
    PolicySet,
    Rekey,
    Rekeyed,
    Revoke,
    Spend,
    Spent,
    Terms,
    UseRow,
    Withdraw,
    Withdrawn,
)

ORIGIN = Address(bytes(20))
LIST_EVERY_S = 30.0
HEARS_S = 2.0
"""After the start, until the chain's past was told."""


class Vault:
    """One vault, open. See the module's docstring.

    Attributes:
        dataset: its stable name; `snapshot` names the version.
        seal_to: the X25519 key that calls are sealed to; it stands in the card.
        card: the data card's bytes, JSON.
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
    ) -> None:
        """
        Args:
            served: what keeps other processes away; closed with the vault.
        """
        master = folder.master()
        self.folder = folder
        self._served = served
        self.owner = owner
        self.network = network
        self.dataset = dataset_id(owner, folder.named.name)
        self._key = key
        self._clock = clock
        self._submit = submit
        self._lock = threading.RLock()
        self._given: Any = None
        self._later: deque[Any] = deque()
        self._wanted_epoch: int | None = None
        self._chain = OnChain(self.dataset, folder.named.name)
        # What the chain has already is heard first.
        self._listed_at_s = clock() - LIST_EVERY_S + HEARS_S
        self._storage = Storage(folder.store, master, sweep=True)
        if self._storage.manifest is None:
            raise BadVault(f"no data was put in: clusterai vault init {folder.root} --from FILE")
        self.schema: Schema = self._storage.manifest.schema
        self.snapshot: Digest = self._storage.manifest.snapshot
        # Once: strangers ask for it.
        self._mock = mock_csv(self.schema)
        self._noise_key = noise_key(master)
        self._outputs = Outputs(folder.held, master)
        self._seals = Seals(master, self.dataset, network, clock())
        policy = folder.policy()
        self._policy_seen_ns = folder.policy_file.stat().st_mtime_ns
        self._book = VaultBook(Terms(self.dataset, owner, network, key.sign, policy))
        self._journal = folder.journal(master)
        self._driver = Driver(self._book, self._journal, self._perform, clock)
        self._name = self.dataset.hex()[:16]
        mounting.sweep(self._name)
        self._do(PolicySet(policy))
        with self._lock:
            self._driver.start()
            self._settle()

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
        said = msgspec.structs.replace(said, serial=self._serial(said))
        signature = self._key.sign(said.signing_digest(self.network))
        return DataListing(canonical.encode(said), signature, card)

    def _serial(self, said: Listing) -> int:
        """One more than the last, where this one says something else."""
        path = self.folder.state / "listing"
        last = canonical.decode(path.read_bytes(), Listing) if path.exists() else None
        if last is not None and msgspec.structs.replace(last, serial=0) == said:
            return last.serial
        serial = max(int(self._clock()), 0 if last is None else last.serial + 1)
        write_aside(path, canonical.encode(msgspec.structs.replace(said, serial=serial)))
        return serial

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
        with self._lock:
            return self._seals.opened(body, self._clock(), order)

    def sealed(self, to: bytes | Asked, data: bytes) -> bytes:
        """An answer to whoever asked; or, to an X25519 key such as `Permit.seal_to`, what it can tell to come from this vault."""
        return self._seals.sealed(to, data)

    # --- what services ask ---

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest) -> Permit:
        """
        Raises:
            Denied: unknown, requester, pending, revoked, expired, operation, other_code, spent.
        """
        with self._lock:
            return self._book.permit(grant, signer, operation, code, self._clock())

    def spend(self, grant: Digest, order: Digest, epsilon_micro: int, delta_pico: int = 0) -> Spent:
        """Durable before it returns; again for the same order, the same answer and nothing more spent.

        Raises:
            Denied: budget, delta, spent and all that ends a grant; `detail` says what is left.
        """
        return self._do(Spend(grant, order, epsilon_micro, delta_pico))

    def used(self, order: Digest, result: Digest) -> SignedUse:
        """Close a use: a leaf of the log, for the requester to keep. `result` is zeros where nothing left the vault.

        Raises:
            Denied: unknown, closed.
        """
        return self._do(Close(order, result))

    def code(self, grant: Digest) -> bytes:
        """The program that a grant is for, as the owner read it; empty where there is none."""
        with self._lock:
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
        return Digest(keccak(self._noise_key))

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

    # --- review: what a program left stays here until the owner has read it ---

    def hold(self, grant: Digest, order: Digest, output: bytes) -> tuple[Finding, ...]:
        """Keep what a program made, and what disclosure control found in it; durable when it returns.

        An order's first output stays: another run of the same order must not take the place of what the owner is reading.

        Raises:
            Denied: unknown, malformed (too long), busy.
        """
        with self._lock:
            entry = self._book.entry_of(grant)
        if entry is None:
            raise Denied("unknown", "no such grant")
        known = self._outputs.find(order)
        if known is not None:
            return known.findings
        if len(output) > MOST_OUTPUT_BYTES:
            raise Denied(
                "malformed", f"the output has {len(output)} bytes, and {MOST_OUTPUT_BYTES} are the most"
            )
        names = [it.name for it in self.schema.columns if it.kind == "text" and it.access == "private"]
        texts = itertools.chain.from_iterable(column.tolist() for column in self.columns(names).values())
        findings = examine(output, texts)
        self._outputs.keep(Output(order, grant, entry.requester, output, findings, int(self._clock())))
        return findings

    def outputs(self) -> list[Output]:
        return self._outputs.all()

    def release(self, order: Digest) -> SignedUse:
        """Let an output go to its requester. It is a use of its own, of no ε: the log names what left.

        Raises:
            Denied: unknown, closed (withheld), disclosure (it is plainly rows), and what ends a grant.
        """
        held = self._held(order)
        if held.state == "withheld":
            raise Denied("closed", "this output was withheld")
        for finding in held.findings:
            if finding.stops:
                raise Denied(
                    "disclosure",
                    f"{finding.code}: {finding.detail}: withhold it, and ask for another program",
                )
        named = release_of(order)
        self.spend(Digest(held.grant), named, 0)
        use = self.used(named, canonical.content_digest(held.output))
        self._outputs.keep(msgspec.structs.replace(held, state="released"))
        return use

    def withhold(self, order: Digest, note: str = "") -> None:
        """
        Raises:
            Denied: unknown, closed (released).
        """
        held = self._held(order)
        if held.state == "released":
            raise Denied("closed", "this output left already")
        self._outputs.keep(msgspec.structs.replace(held, state="withheld", note=note, output=b""))

    def released(self, order: Digest, signer: Address) -> tuple[bytes, SignedUse]:
        """An output, for whoever made it.

        Raises:
            Denied: unknown, pending, withheld.
        """
        held = self._outputs.find(order)
        if held is None or held.requester != signer:
            raise Denied("unknown", "no output of yours under this order")
        if held.state == "held":
            raise Denied("pending", "the vault's owner hasn't let it go yet")
        if held.state == "withheld":
            raise Denied("withheld", f"the vault's owner withheld it{f': {held.note}' if held.note else ''}")
        return held.output, self.used(release_of(order), canonical.content_digest(held.output))

    def _held(self, order: Digest) -> Output:
        held = self._outputs.find(order)
        if held is None:
            raise Denied("unknown", f"no output under 0x{order.hex()}")
        return held

    # --- what the desk and the owner ask ---

    def ask(self, event: vocabulary.AskedFor) -> Entry:
        """
        Raises:
            Denied.
        """
        return self._do(event)

    def approve(self, request: Digest, note: str = "") -> Entry:
        return self._do(Approve(request, note))

    def deny(self, request: Digest, note: str = "") -> Entry:
        return self._do(Deny(request, note))

    def revoke(self, grant: Digest, reason: int) -> Entry:
        """From the moment it returns nothing is permitted under this grant, whatever the chain is doing; the next `tick` keys all anew."""
        return self._do(Revoke(grant, reason))

    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._book.entries.values())

    def uses(self) -> list[UseRow]:
        with self._lock:
            return self._book.uses()

    @property
    def anchored(self) -> int:
        return self._book.anchored

    def left_micro(self, requester: Address) -> int:
        """ε that the policy leaves to a requester over all its grants."""
        with self._lock:
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
        self._do(Tick())
        self._rekey()
        self._list()
        if self._chain.barred:
            raise BadVault(self._chain.barred)

    def _rekey(self) -> None:
        """Without the lock: it may read and write gigabytes, and meanwhile services read and spend."""
        epoch = self._wanted_epoch
        if epoch is not None:
            self._storage.rekey(epoch)
            self._wanted_epoch = None
            self._do(Rekeyed(epoch))

    def hear(self, event: Any) -> None:
        """An event of the chain, or what became of a call."""
        for told in self._chain.hear(event):
            self._do(told)

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
        with self._lock:
            self._journal.close()
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
                    self.release(target)
                    return Outcome(True, state="released")
                case "withhold":
                    self.withhold(target, command.note)
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
                self._do(PolicySet(self.folder.policy()))

    # --- stepping ---

    def _do(self, event: Any) -> Any:
        """Step, and what the step gives to its caller.

        Raises:
            Denied.
        """
        with self._lock:
            self._given = None
            self._driver.handle(event)
            given, self._given = self._given, None
            self._settle()
        if isinstance(given, No):
            raise Denied(given.code, given.detail)
        return given.value if isinstance(given, Gave) else None

    def _settle(self) -> None:
        """What effects asked for and was done at once comes back as events, after the step that asked."""
        while self._later:
            self._driver.handle(self._later.popleft())
        self._given = None

    def _perform(self, effect: Any) -> None:
        match effect:
            case Gave() | No():
                self._given = effect
            case Rekey(epoch):
                self._wanted_epoch = epoch
            case _ if self._submit is not None:
                submit = self._chain.calls(effect, self.policy)
                if submit is not None:
                    self._submit(submit)
            # No chain keeps grants here: they hold at once.
            case Issue(grant):
                self._later.append(Confirmed(grant.struct()))
            case Withdraw(grant, reason):
                self._later.append(Withdrawn(grant, reason))
            case Anchor(count, _, _, as_of_s):
                self._later.append(Anchored(count, as_of_s))
            case _:
                pass


def open_vault(
    folder: Path,
    owner: Address,
    key: Key,
    domain: Domain,
    clock: Callable[[], float] = time.time,
    submit: Callable[[Submit], None] | None = None,
) -> Vault:
    """Open a vault to serve it.

    Args:
        owner: whose data it is; with the vault's name it makes the data set's id.
        key: the hot key that signs uses and listings.
        domain: the network's.
        submit: takes calls to the chain, with the hot key; None where no chain keeps grants: then they hold at once.

    Raises:
        NoVault, BadVault, WrongKey: the message says what to do.
    """
    place = VaultFolder(folder)
    served = place.serve()
    try:
        return Vault(place, served, owner, key, domain, clock, submit)
    except BaseException:
        served.close()
        raise


def read_book(folder: VaultFolder) -> VaultBook:
    """The book as the journal has it, beside whoever serves the vault: to look at, not to step.

    Raises:
        BadVault.
    """
    book = VaultBook(
        Terms(Digest(bytes(32)), ORIGIN, Domain("", "", 0, ORIGIN), _signs_nothing, folder.policy())
    )
    decoder = msgspec.msgpack.Decoder(book.RECORDS)
    book.restore(decoder.decode(record) for record in read_records(folder.journal_file, folder.master()))
    return book


def _signs_nothing(_: Digest) -> bytes:
    raise AssertionError("a book that is looked at signs nothing")


def release_of(order: Digest) -> Digest:
    """The name in the log of letting an order's output go."""
    return canonical.content_digest(b"clusterai release 1" + order)


def noise_key(master: bytes) -> bytes:
    """The key that a vault's noise is drawn from."""
    return blake3(master, derive_key_context="clusterai vault noise 1").digest()


def noise_seed(key: bytes, order: bytes, beacon: bytes) -> bytes:
    """What an auditor who was given the noise key computes again."""
    return hmac.new(key, b"clusterai noise 1" + order + beacon, hashlib.sha256).digest()
