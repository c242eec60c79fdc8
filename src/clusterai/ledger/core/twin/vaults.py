"""Vaults.sol: licences, anchored logs of uses, what convicts a vault, and copies that are sold."""

import msgspec

from clusterai.ledger.core.events import (
    AccessGranted,
    BreachProven,
    CopyBought,
    CopyDelivered,
    DatasetListed,
    GrantEnded,
    LogAnchored,
    SaleClosed,
)
from clusterai.ledger.core.twin.court import Court
from clusterai.ledger.core.twin.registry import PROVIDER, Registry
from clusterai.ledger.core.twin.state import Transaction, World, require
from clusterai.ledger.core.twin.token import Token
from clusterai.ledger.core.vault_calls import DatasetTerms, Piece, Shown
from clusterai.protocol import merkle
from clusterai.protocol.eip712 import word
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import Outcome
from clusterai.protocol.vaults import Breach, Grant, Operation, Revoked, Use

NONE, OPEN, DELIVERED, CLOSED = range(4)
MAX_EPSILON = 2**63 - 1
MAX_ROYALTY_BPS = 1_000
MAX_LAG_S = 86_400
MAX_DELIVERY_S = 30 * 86_400

_NO_TERMS = DatasetTerms(ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, 0, 0)


class Listing(msgspec.Struct, frozen=True):
    owner: Address = ZERO_ADDRESS
    frozen: bool = False
    terms: DatasetTerms = _NO_TERMS


class Licence(msgspec.Struct, frozen=True):
    dataset: Digest = ZERO_DIGEST
    holder: Address = ZERO_ADDRESS
    expires_s: int = 0
    operation: int = 0
    reason: int = 0
    transferable: bool = False
    renounced: bool = False
    epsilon_micro: int = 0
    granted_s: int = 0
    revoked_s: int = 0


class Anchor(msgspec.Struct, frozen=True):
    root: Digest
    count: int
    spent_micro: int
    as_of_s: int


class Sale(msgspec.Struct, frozen=True):
    dataset: Digest = ZERO_DIGEST
    grant: Digest = ZERO_DIGEST
    payer: Address = ZERO_ADDRESS
    deliver_by_s: int = 0
    delivered_s: int = 0
    state: int = NONE
    price: int = 0


_NO_LISTING, _NO_LICENCE, _NO_SALE = Listing(), Licence(), Sale()
_replace = msgspec.structs.replace


def sale_id(dataset: Digest, request: Digest, requester: Address, payer: Address) -> Digest:
    return Digest(keccak(dataset + request + word(requester) + word(payer)))


class Vaults:
    def __init__(self, world: World, token: Token, registry: Registry, court: Court) -> None:
        self._world = world
        self._store = world.store
        self._token = token
        self._registry = registry
        self._court = court
        self._here = world.addresses.vaults
        self._window_s = world.rules.window_s

    # --- public: the vault ---

    def list_dataset(self, tx: Transaction, name: Digest, terms: DatasetTerms) -> None:
        owner = self._registry.owner_of(tx.sender)
        _, roles = self._registry.standing(tx.sender)
        require(owner != ZERO_ADDRESS and roles & PROVIDER != 0, "NotProvider")
        self._require_standing(owner)
        require(terms.budget_micro <= MAX_EPSILON, "OutOfRange")
        require(terms.royalty_bps <= MAX_ROYALTY_BPS, "OutOfRange")
        dataset = Digest(keccak(b"clusterai dataset" + owner + name))
        listing = self.listing(dataset)
        if listing.owner != ZERO_ADDRESS:
            before = listing.terms
            require(not listing.frozen, "DatasetFrozen")
            fixed = (terms.noise_commit, terms.budget_micro) == (before.noise_commit, before.budget_micro)
            require(fixed, "TermsFixed")
            require(terms.serial > before.serial, "OutOfRange")
        self._store.put(("dataset", dataset), Listing(owner, False, terms))
        tx.emit(DatasetListed(dataset, owner, name, terms))

    def grant_access(self, tx: Transaction, grant: Grant, transferable: bool) -> None:
        grant_id = self._license(tx, grant, transferable)
        self._mint(grant_id, grant)

    def end_grant(self, tx: Transaction, grant_id: Digest, reason: int) -> None:
        licence = self.licence(grant_id)
        require(licence.holder != ZERO_ADDRESS, "GrantOver")
        if reason == Revoked.EXPIRED:
            require(tx.now_s > licence.expires_s, "TooEarly")
        else:
            require(reason <= max(Revoked), "OutOfRange")
            renounced = tx.sender == licence.holder and reason == Revoked.ASKED
            if not renounced:
                self._require_owner(tx, self.listing(licence.dataset).owner)
            licence = _replace(licence, reason=reason, renounced=renounced, revoked_s=tx.now_s)
        tx.emit(GrantEnded(grant_id, licence.dataset, reason))
        self._store.put(("licence", grant_id), _replace(licence, holder=ZERO_ADDRESS))

    def anchor_log(
        self, tx: Transaction, dataset: Digest, root: Digest, count: int, spent_micro: int, as_of_s: int
    ) -> None:
        listing = self._mine(tx, dataset)
        number = self.anchors(dataset)
        require(count != 0, "OutOfRange")
        require(spent_micro <= listing.terms.budget_micro, "OutOfRange")
        require(as_of_s <= tx.now_s, "OutOfRange")
        require(as_of_s + MAX_LAG_S >= tx.now_s, "OutOfRange")
        if number:
            last = self.anchor(dataset, number - 1)
            require(count >= last.count, "OutOfRange")
            require(spent_micro >= last.spent_micro, "OutOfRange")
            require(as_of_s >= last.as_of_s, "OutOfRange")
            require(count > last.count or root == last.root, "OutOfRange")
        self._store.put(("anchor", dataset, number), Anchor(root, count, spent_micro, as_of_s))
        self._store.put(("anchors", dataset), number + 1)
        tx.emit(LogAnchored(dataset, number, root, count, spent_micro, as_of_s))

    def deliver_copy(self, tx: Transaction, payer: Address, grant: Grant, transferable: bool) -> None:
        sale = sale_id(Digest(grant.dataset), Digest(grant.request), Address(grant.requester), payer)
        sold = self.sale(sale)
        require(sold.state == OPEN, "WrongState")
        require(tx.now_s <= sold.deliver_by_s, "TooLate")
        require(grant.operation == Operation.COPY, "OutOfRange")
        require(grant.expires_s > tx.now_s + self._window_s, "OutOfRange")
        grant_id = self._license(tx, grant, transferable)
        self._store.put(("sale", sale), _replace(sold, state=DELIVERED, grant=grant_id, delivered_s=tx.now_s))
        tx.emit(CopyDelivered(sale, grant_id))
        self._mint(grant_id, grant)

    # --- public: buyers ---

    def buy_copy(
        self,
        tx: Transaction,
        dataset: Digest,
        request: Digest,
        requester: Address,
        most_wei: int,
        deliver_by_s: int,
    ) -> None:
        price = self._open(dataset).terms.price_wei
        require(price != 0, "NotForSale")
        require(price <= most_wei, "OutOfRange")
        require(requester != ZERO_ADDRESS, "OutOfRange")
        require(deliver_by_s >= tx.now_s, "TooLate")
        require(deliver_by_s <= tx.now_s + MAX_DELIVERY_S, "OutOfRange")
        sale = sale_id(dataset, request, requester, tx.sender)
        require(self.sale(sale).state == NONE, "WrongState")
        sold = Sale(dataset, payer=tx.sender, deliver_by_s=deliver_by_s, state=OPEN, price=price)
        self._store.put(("sale", sale), sold)
        tx.emit(CopyBought(sale, dataset, requester, request, tx.sender, price, deliver_by_s))
        self._token.pull(tx, self._here, tx.sender, self._here, price)

    # --- public: anyone ---

    def close_sale(self, tx: Transaction, sale: Digest) -> None:
        sold = self.sale(sale)
        require(sold.state in (OPEN, DELIVERED), "WrongState")
        listing = self.listing(sold.dataset)
        if not listing.frozen and not self._barred(listing.owner):
            if sold.state == DELIVERED:
                end_s = sold.delivered_s + self._window_s
                licence = self.licence(sold.grant)
                if licence.reason == 0 or licence.renounced or licence.revoked_s > end_s:
                    require(tx.now_s > end_s, "TooEarly")
                    return self._close(tx, sale, listing.owner, paid=True)
            elif self._registry.owner_of(tx.sender) != listing.owner:
                require(tx.now_s > sold.deliver_by_s, "TooEarly")
        return self._close(tx, sale, sold.payer, paid=False)

    def prove_spending(self, tx: Transaction, shown: Shown) -> None:
        use = shown.use
        anchor = self._in_log(shown)
        dataset = Digest(use.dataset)
        licence = self.licence(Digest(use.grant))
        allowed = licence.epsilon_micro if licence.dataset == dataset else 0
        budget = self.listing(dataset).terms.budget_micro
        overspent = use.grant_spent_micro > allowed or use.total_spent_micro > budget
        miscounted = not (
            use.epsilon_micro <= use.grant_spent_micro <= use.total_spent_micro <= anchor.spent_micro
        )
        require(overspent or miscounted, "NoBreach")
        self._convict(tx, dataset, Breach.OVERSPENT if overspent else Breach.MISCOUNTED, use.struct())

    def prove_sums(self, tx: Transaction, first: Shown, second: Shown) -> None:
        self._in_log(second)
        self._in_log(first)
        a, b = first.use, second.use
        require(a.dataset == b.dataset and a.index < b.index, "NoBreach")
        grant_wrong = a.grant == b.grant and b.grant_spent_micro < a.grant_spent_micro + b.epsilon_micro
        require(grant_wrong or b.total_spent_micro < a.total_spent_micro + b.epsilon_micro, "NoBreach")
        self._convict(tx, Digest(b.dataset), Breach.MISCOUNTED, b.struct())

    def prove_equivocation(
        self, tx: Transaction, first: Use, first_signature: bytes, second: Use, second_signature: bytes
    ) -> None:
        hashed = self._signed(first, first_signature)
        other = self._signed(second, second_signature)
        same = (first.dataset, first.index) == (second.dataset, second.index)
        require(other != hashed and same, "NoBreach")
        self._convict(tx, Digest(first.dataset), Breach.EQUIVOCATED, hashed)

    def prove_omission(self, tx: Transaction, use: Use, signature: bytes, piece: Piece) -> None:
        hashed, dataset = self._signed(use, signature), Digest(use.dataset)
        anchor = self._anchor_at(dataset, piece.anchor)
        if use.index < anchor.count:
            _require_at(anchor, use.index, piece.value, piece.proof)
            require(piece.value != hashed, "NoBreach")
        else:
            require(use.at_s < anchor.as_of_s, "NoBreach")
        self._convict(tx, dataset, Breach.OMITTED, hashed)

    def prove_rewriting(
        self, tx: Transaction, dataset: Digest, index: int, first: Piece, second: Piece
    ) -> None:
        _require_at(self._anchor_at(dataset, first.anchor), index, first.value, first.proof)
        _require_at(self._anchor_at(dataset, second.anchor), index, second.value, second.proof)
        require(first.value != second.value, "NoBreach")
        self._convict(tx, dataset, Breach.REWRITTEN, second.value)

    # --- views ---

    def listing(self, dataset: Digest) -> Listing:
        return self._store.get(("dataset", dataset), _NO_LISTING)

    def licence(self, grant_id: Digest) -> Licence:
        return self._store.get(("licence", grant_id), _NO_LICENCE)

    def sale(self, sale: Digest) -> Sale:
        return self._store.get(("sale", sale), _NO_SALE)

    def anchors(self, dataset: Digest) -> int:
        return self._store.get(("anchors", dataset), 0)

    def anchor(self, dataset: Digest, number: int) -> Anchor:
        found: Anchor | None = self._store.get(("anchor", dataset, number), None)
        assert found is not None, "ask for anchors that there are"
        return found

    def is_live(self, grant_id: Digest, who: Address, now_s: int) -> bool:
        licence = self.licence(grant_id)
        listing = self.listing(licence.dataset)
        holds = who != ZERO_ADDRESS and licence.holder == who and now_s <= licence.expires_s
        return holds and not listing.frozen and not self._barred(listing.owner)

    # --- internal ---

    def _license(self, tx: Transaction, grant: Grant, transferable: bool) -> Digest:
        listing = self._mine(tx, Digest(grant.dataset))
        require(0 < grant.operation <= max(Operation), "OutOfRange")
        require(grant.uses != 0, "OutOfRange")
        require(grant.epsilon_micro <= listing.terms.budget_micro, "OutOfRange")
        require(grant.expires_s >= tx.now_s, "OutOfRange")
        require(grant.requester != ZERO_ADDRESS, "OutOfRange")
        require(not transferable or grant.operation == Operation.COPY, "OutOfRange")
        grant_id = grant.struct()
        require(self.licence(grant_id).dataset == ZERO_DIGEST, "AlreadyGranted")
        licence = Licence(
            dataset=Digest(grant.dataset),
            expires_s=grant.expires_s,
            operation=int(grant.operation),
            transferable=transferable,
            epsilon_micro=grant.epsilon_micro,
            granted_s=tx.now_s,
        )
        self._store.put(("licence", grant_id), licence)
        requester = Address(grant.requester)
        tx.emit(AccessGranted(grant_id, licence.dataset, requester, grant, transferable))
        return grant_id

    def _mint(self, grant_id: Digest, grant: Grant) -> None:
        """Last of all, as in the contract; requesters are keys here."""
        holder = Address(grant.requester)
        self._store.put(("licence", grant_id), _replace(self.licence(grant_id), holder=holder))

    def _close(self, tx: Transaction, sale: Digest, to: Address, *, paid: bool) -> None:
        sold = self.sale(sale)
        self._store.put(("sale", sale), _replace(sold, state=CLOSED))
        tx.emit(SaleClosed(sale, sold.price if paid else 0, 0 if paid else sold.price))
        self._token.move(tx, self._here, to, sold.price)

    def _convict(self, tx: Transaction, dataset: Digest, kind: Breach, evidence: Digest) -> None:
        listing = self.listing(dataset)
        require(not listing.frozen, "DatasetFrozen")
        self._store.put(("dataset", dataset), _replace(listing, frozen=True))
        tx.emit(BreachProven(dataset, listing.owner, int(kind), evidence, tx.sender))
        self._court.convict_by_lease(tx, listing.owner, tx.sender, Outcome.FRAUD, dataset)

    def _in_log(self, shown: Shown) -> Anchor:
        anchor = self._anchor_at(Digest(shown.use.dataset), shown.anchor)
        _require_at(anchor, shown.use.index, shown.use.struct(), shown.proof)
        return anchor

    def _anchor_at(self, dataset: Digest, number: int) -> Anchor:
        require(number < self.anchors(dataset), "UnknownAnchor")
        return self.anchor(dataset, number)

    def _signed(self, use: Use, signature: bytes) -> Digest:
        owner = ZERO_ADDRESS
        try:
            key = self._world.recover(use.signing_digest(self._world.network_domain), signature)
            owner, _ = self._registry.standing(key)
        except BadSignature:
            pass
        known = owner != ZERO_ADDRESS and owner == self.listing(Digest(use.dataset)).owner
        require(known, "NotSigned")
        return use.struct()

    def _mine(self, tx: Transaction, dataset: Digest) -> Listing:
        listing = self._open(dataset)
        self._require_owner(tx, listing.owner)
        return listing

    def _open(self, dataset: Digest) -> Listing:
        listing = self.listing(dataset)
        require(listing.owner != ZERO_ADDRESS, "UnknownDataset")
        require(not listing.frozen, "DatasetFrozen")
        self._require_standing(listing.owner)
        return listing

    def _require_owner(self, tx: Transaction, owner: Address) -> None:
        require(self._registry.owner_of(tx.sender) == owner, "NotOwner")

    def _require_standing(self, owner: Address) -> None:
        require(not self._barred(owner), "ProviderBarred")

    def _barred(self, owner: Address) -> bool:
        return self._registry.participant(owner).barred


def _require_at(anchor: Anchor, index: int, value: Digest, proof: tuple[Digest, ...]) -> None:
    require(merkle.verify(anchor.root, value, index, anchor.count, proof), "NotInLog")
