"""Vaults on chain, villains first: each test is one story on the bytecode and its twin, and no honest vault is convicted."""

from typing import Any

import msgspec
import pytest

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import BreachProven, Convicted, CopyBought, GrantEnded, SaleClosed, Slashed
from clusterai.ledger.core.twin.vaults import sale_id
from clusterai.ledger.core.vault_calls import Piece
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Digest
from clusterai.protocol.vaults import Breach, Operation, Revoked, name_digest
from tests.contracts.cast import AT, EVERYONE, HOTS, OWNERS, PAYER, RULES, STRANGER
from tests.contracts.vaultcast import (
    BUDGET,
    PRICE,
    WINDOW_S,
    Log,
    VaultPair,
    dataset,
    digest,
    grant,
    signed,
    terms,
    told,
)

ANN, BOB = HOTS["ann"], HOTS["bob"]
NOTHING = Piece(0, ZERO_DIGEST, ())


@pytest.fixture
def pair() -> VaultPair:
    made = VaultPair()
    made.populate()
    return made


@pytest.fixture
def log(pair: VaultPair) -> Log:
    """Five honest uses of two grants, anchored after three and after all."""
    first, second = pair.granted(grant("ann", "payer")), pair.granted(grant("ann", "gate", "other"))
    log = Log("ann")
    for one in (first, second, first):
        log.use(one, 300_000, pair.now_s)
    pair.advance(5)
    pair.anchored(log)
    for one in (second, first):
        log.use(one, 300_000, pair.now_s)
    pair.advance(5)
    pair.anchored(log)
    return log


def convicted(pair: VaultPair, call: calls.Call, kind: Breach) -> None:
    """The stranger shows it: the vault loses its stake, half of it to the stranger, and its dataset is frozen."""
    stake, money = pair.stake("ann"), pair.balance("stranger")
    events = pair.expect(call, STRANGER)
    breach = told(events, BreachProven)
    assert (breach.dataset, breach.owner, breach.kind) == (dataset("ann"), OWNERS["ann"].address, kind)
    slashed = told(events, Slashed)
    assert (slashed.amount, slashed.bounty) == (stake, stake * RULES.bounty_bps // 10_000)
    assert told(events, Convicted).evidence == dataset("ann")
    assert pair.balance("stranger") == money + slashed.bounty
    assert pair.stake("ann") == 0
    assert pair.refused(call, STRANGER) == "DatasetFrozen"
    assert pair.refused(calls.GrantAccess(grant("ann", "payer", "later")), ANN) == "DatasetFrozen"
    pair.compare_vaults()


# --- villains among vaults ---


def test_a_vault_that_overspends_a_grant_is_convicted(pair: VaultPair) -> None:
    """One millionth above what was granted is enough, shown by its leaf in the anchored log."""
    one = pair.granted(grant("ann", "payer"))
    log = Log("ann")
    log.use(one, 2_000_000, pair.now_s)
    log.use(one, 1, pair.now_s)
    pair.anchored(log)
    assert pair.refused(calls.ProveSpending(log.shown(0)), STRANGER) == "NoBreach"
    convicted(pair, calls.ProveSpending(log.shown(1)), Breach.OVERSPENT)


def test_a_vault_that_overspends_its_budget_is_convicted(pair: VaultPair) -> None:
    """Many grants within their bounds may not spend more than the budget in all; the anchor can't even say so."""
    grants = [pair.granted(grant("ann", "payer", f"wish {i}")) for i in range(6)]
    log = Log("ann")
    for one in grants:
        log.use(one, 2_000_000, pair.now_s)
    assert pair.refused(log.anchor(pair.now_s), ANN) == "OutOfRange"
    pair.expect(log.anchor(pair.now_s, BUDGET), ANN)
    convicted(pair, calls.ProveSpending(log.shown(5)), Breach.OVERSPENT)


def test_a_vault_that_answers_without_a_grant_is_convicted(pair: VaultPair) -> None:
    """A grant that was never given allows nothing; neither does another dataset's."""
    elsewhere = grant("bob", "payer")
    pair.granted(elsewhere, "bob")
    log = Log("ann")
    log.use(elsewhere, 5, pair.now_s, dataset=dataset("ann"))
    log.use(grant("ann", "stranger", "never"), 5, pair.now_s)
    pair.anchored(log)
    convicted(pair, calls.ProveSpending(log.shown(1)), Breach.OVERSPENT)


@pytest.mark.parametrize(
    "changes",
    [
        {"grant_spent_micro": 300_000},
        {"total_spent_micro": 899_999},
        {"grant_spent_micro": 0, "total_spent_micro": 900_000},
    ],
    ids=["grant", "total", "reset"],
)
def test_a_vault_that_forgets_what_was_spent_is_convicted(pair: VaultPair, changes: dict[str, int]) -> None:
    """Sums that don't rise by what a later use spent show it, whichever of the two sums it is."""
    one = pair.granted(grant("ann", "payer"))
    log = Log("ann")
    log.use(one, 300_000, pair.now_s)
    log.use(one, 300_000, pair.now_s)
    log.use(one, 300_000, pair.now_s, **changes)
    pair.expect(log.anchor(pair.now_s, 900_000), ANN)
    assert pair.refused(calls.ProveSums(log.shown(0), log.shown(1)), STRANGER) == "NoBreach"
    assert pair.refused(calls.ProveSums(log.shown(2), log.shown(1)), STRANGER) == "NoBreach"
    convicted(pair, calls.ProveSums(log.shown(1), log.shown(2)), Breach.MISCOUNTED)


def test_a_vault_that_anchors_less_than_it_spent_is_convicted(pair: VaultPair) -> None:
    """A leaf whose total is above the anchor's."""
    one = pair.granted(grant("ann", "payer"))
    log = Log("ann")
    log.use(one, 300_000, pair.now_s)
    pair.expect(log.anchor(pair.now_s, 299_999), ANN)
    convicted(pair, calls.ProveSpending(log.shown(0)), Breach.MISCOUNTED)


def test_an_equivocating_vault_is_convicted(pair: VaultPair, log: Log) -> None:
    """Two signed uses with one index, though neither was ever anchored; a revoked key's word counts too."""
    use = log.use(grant("ann", "payer"), 100_000, pair.now_s)
    other = msgspec.structs.replace(use, epsilon_micro=50_000)
    call = calls.ProveEquivocation(use, signed(use, ANN), other, signed(other, ANN))
    pair.expect(calls.Revoke(ANN.address), OWNERS["ann"])
    convicted_by_owner_key = calls.ProveEquivocation(use, signed(use, OWNERS["ann"]), use, signed(use, ANN))
    assert pair.refused(convicted_by_owner_key, STRANGER) == "NoBreach"
    stake = pair.stake("ann")
    events = pair.expect(call, STRANGER)
    assert told(events, Slashed).amount == stake
    assert told(events, BreachProven).kind == Breach.EQUIVOCATED


def test_a_vault_whose_log_has_another_use_is_convicted(pair: VaultPair, log: Log) -> None:
    """What stands at the index isn't what it signed for the requester."""
    use = msgspec.structs.replace(log.uses[1], result=digest("what I got"))
    call = calls.ProveOmission(use, signed(use, ANN), log.piece(1, 1))
    convicted(pair, call, Breach.OMITTED)


def test_a_vault_that_leaves_a_use_out_is_convicted(pair: VaultPair, log: Log) -> None:
    """The log claims to be whole up to a time after the use, and ends before its index."""
    use = log.use(grant("ann", "payer"), 100_000, pair.now_s - 1)
    convicted(
        pair,
        calls.ProveOmission(use, signed(use, ANN), msgspec.structs.replace(NOTHING, anchor=1)),
        Breach.OMITTED,
    )


def test_a_vault_that_writes_its_log_anew_is_convicted(pair: VaultPair, log: Log) -> None:
    """Two anchors of which the later forgets what the earlier had."""
    other = Log("ann")
    other.uses = [msgspec.structs.replace(log.uses[0], result=digest("better")), *log.uses[1:]]
    other.use(grant("ann", "payer"), 100_000, pair.now_s)
    pair.anchored(other)
    old, new = log.piece(0, 0, 3), other.piece(0, 2)
    assert pair.refused(calls.ProveRewriting(dataset("ann"), 0, old, old), STRANGER) == "NoBreach"
    convicted(pair, calls.ProveRewriting(dataset("ann"), 0, old, new), Breach.REWRITTEN)


# --- villains among accusers ---


def test_an_accuser_with_nothing_in_hand_convicts_nobody(pair: VaultPair, log: Log) -> None:
    """Honest leaves, others' signatures, forged proofs, anchors that aren't there: each is refused, and the stake stays."""
    first, second = log.uses[0], log.uses[3]
    late = log.use(grant("ann", "payer"), 100_000, pair.now_s)
    forged = msgspec.structs.replace(first, grant_spent_micro=5_000_000)
    tried: list[tuple[calls.Call, str]] = [
        *((calls.ProveSpending(log.shown(index, 1, 5)), "NoBreach") for index in range(5)),
        *((calls.ProveSpending(log.shown(index, 0, 3)), "NoBreach") for index in range(3)),
        (calls.ProveSums(log.shown(0, 0, 3), log.shown(4, 1, 5)), "NoBreach"),
        (calls.ProveSums(log.shown(1, 0, 3), log.shown(1, 1, 5)), "NoBreach"),
        (calls.ProveSpending(msgspec.structs.replace(log.shown(0, 1, 5), use=forged)), "NotInLog"),
        (calls.ProveSpending(log.shown(0, 2, 5)), "UnknownAnchor"),
        (calls.ProveSpending(log.shown(3, 0, 5)), "NotInLog"),
        (calls.ProveEquivocation(first, signed(first, ANN), first, signed(first, ANN)), "NoBreach"),
        (calls.ProveEquivocation(first, signed(first, ANN), second, signed(second, ANN)), "NoBreach"),
        (calls.ProveEquivocation(first, signed(first, ANN), forged, signed(forged, STRANGER)), "NotSigned"),
        (calls.ProveEquivocation(first, signed(first, ANN), forged, signed(forged, BOB)), "NotSigned"),
        (calls.ProveEquivocation(first, signed(first, ANN), forged, bytes(65)), "NotSigned"),
        (calls.ProveOmission(first, signed(first, ANN), log.piece(0, 1, 5)), "NoBreach"),
        (calls.ProveOmission(first, signed(first, ANN), log.piece(1, 1, 5)), "NotInLog"),
        (calls.ProveOmission(forged, signed(forged, BOB), log.piece(0, 1, 5)), "NotSigned"),
        (
            calls.ProveOmission(late, signed(late, ANN), msgspec.structs.replace(NOTHING, anchor=1)),
            "NoBreach",
        ),
        (calls.ProveOmission(second, signed(second, ANN), NOTHING), "NoBreach"),
        (calls.ProveRewriting(dataset("ann"), 0, log.piece(0, 0, 3), log.piece(0, 1, 5)), "NoBreach"),
        (calls.ProveRewriting(dataset("ann"), 0, log.piece(0, 0, 3), log.piece(1, 1, 5)), "NotInLog"),
        (calls.ProveRewriting(dataset("bob"), 0, log.piece(0, 0, 3), log.piece(0, 1, 5)), "UnknownAnchor"),
    ]
    for call, reason in tried:
        assert pair.refused(call, STRANGER) == reason, call
    assert pair.stake("ann") == 10_000
    pair.compare_vaults()


def test_only_vaults_and_leases_convict_without_a_vote(pair: VaultPair) -> None:
    """Nobody else has the Court take a stake."""
    arguments = (OWNERS["ann"].address, STRANGER.address, 2, ZERO_DIGEST)
    for caller in (STRANGER.address, ANN.address, EVERYONE["deployer"].address):
        refused: Any = pair.bytecode.transact("Court", "convictByLease", caller, pair.block(), *arguments)
        assert refused.reason == "OnlyLeases"


# --- grants ---


def test_a_stranger_grants_nothing(pair: VaultPair) -> None:
    """Neither an unregistered key nor another vault's gives, ends, anchors or lists what isn't its own."""
    one = grant("ann", "payer")
    for who in (STRANGER, BOB, EVERYONE["gate hot"]):
        assert pair.refused(calls.GrantAccess(one), who) == "NotOwner"
        log = Log("ann")
        log.use(one, 1, pair.now_s)
        assert pair.refused(log.anchor(pair.now_s), who) == "NotOwner"
    for who in (STRANGER, EVERYONE["gate hot"]):
        assert pair.refused(calls.ListDataset(name_digest("hospital"), terms(2)), who) == "NotProvider"
    pair.granted(one)
    for who in (STRANGER, BOB):
        assert pair.refused(calls.EndGrant(one.struct(), Revoked.POLICY), who) == "NotOwner"
    pair.expect(calls.ListDataset(name_digest("hospital"), terms(2)), BOB)
    assert pair.twin.vaults.listing(dataset("ann")).terms.serial == 1, "bob's hospital is another"
    pair.compare_vaults()


def test_a_revoked_grantee_holds_nothing(pair: VaultPair) -> None:
    """A revoked licence is not live, can't be revoked again, and isn't given again under the same id."""
    one = pair.granted(grant("ann", "payer"))
    vaults = pair.twin.vaults
    assert vaults.is_live(one.struct(), PAYER.address, pair.now_s)
    assert not vaults.is_live(one.struct(), STRANGER.address, pair.now_s)
    ended = told(pair.expect(calls.EndGrant(one.struct(), Revoked.TERMS), ANN), GrantEnded)
    assert ended.reason == Revoked.TERMS
    assert not vaults.is_live(one.struct(), PAYER.address, pair.now_s)
    assert pair.refused(calls.EndGrant(one.struct(), Revoked.TERMS), ANN) == "GrantOver"
    assert pair.refused(calls.GrantAccess(one), ANN) == "AlreadyGranted"
    pair.compare_vaults()


def test_a_grant_expires_and_anyone_may_burn_it(pair: VaultPair) -> None:
    """Until its second it is live; then it is not, burnt or not."""
    one = pair.granted(grant("ann", "payer", expires_s=pair.now_s + 10))
    pair.advance(10)
    assert pair.twin.vaults.is_live(one.struct(), PAYER.address, pair.now_s)
    assert pair.refused(calls.EndGrant(one.struct(), Revoked.EXPIRED), STRANGER) == "TooEarly"
    pair.advance(1)
    assert not pair.twin.vaults.is_live(one.struct(), PAYER.address, pair.now_s)
    pair.compare_vaults()
    pair.expect(calls.EndGrant(one.struct(), Revoked.EXPIRED), STRANGER)
    pair.compare_vaults()


@pytest.mark.parametrize(
    ("changes", "transferable"),
    [
        ({"operation": 0}, False),
        ({"operation": 7}, False),
        ({"uses": 0}, False),
        ({"epsilon_micro": BUDGET + 1}, False),
        ({"expires_s": 1}, False),
        ({"requester": ZERO_ADDRESS}, False),
        ({}, True),
    ],
)
def test_grants_out_of_range_are_refused(
    pair: VaultPair, changes: dict[str, Any], transferable: bool
) -> None:
    """Of unknown operations, for nobody, for no use, beyond the budget, in the past, or transferable though they aren't copies."""
    one = msgspec.structs.replace(grant("ann", "payer"), **changes)
    assert pair.refused(calls.GrantAccess(one, transferable), ANN) == "OutOfRange"


def test_noise_and_budget_stay_what_they_were(pair: VaultPair) -> None:
    """A listing may change its card, snapshot and policy with a higher serial, and nothing that an answer depends on."""
    name = name_digest("hospital")
    for changed in (terms(2, noise_commit=digest("chosen")), terms(2, budget_micro=BUDGET + 1)):
        assert pair.refused(calls.ListDataset(name, changed), ANN) == "TermsFixed"
    assert pair.refused(calls.ListDataset(name, terms(1)), ANN) == "OutOfRange"
    assert pair.refused(calls.ListDataset(name, terms(2, royalty_bps=1_001)), ANN) == "OutOfRange"
    assert (
        pair.refused(calls.ListDataset(name_digest("x"), terms(2, budget_micro=2**63)), ANN) == "OutOfRange"
    )
    pair.expect(calls.ListDataset(name, terms(2, card=digest("new"))), OWNERS["ann"])
    pair.compare_vaults()


def test_a_log_only_grows(pair: VaultPair, log: Log) -> None:
    """No anchor has fewer uses, less ε, an earlier time, the future, or another root for as many uses."""
    good = log.anchor(pair.now_s)
    change = msgspec.structs.replace
    for bad in (
        change(good, count=4),
        change(good, count=0),
        change(good, spent_micro=good.spent_micro - 1),
        change(good, as_of_s=pair.now_s - 1),
        change(good, as_of_s=pair.now_s + 1),
        change(good, root=digest("other")),
    ):
        assert pair.refused(bad, ANN) == "OutOfRange"
    pair.advance(86_401)
    assert pair.refused(good, ANN) == "OutOfRange", "a day old"
    pair.expect(change(good, as_of_s=pair.now_s), ANN)
    pair.compare_vaults()


# --- copies ---


def test_a_copy_is_paid_after_the_window(pair: VaultPair) -> None:
    """The price lies in the contract until the window after the delivery is over, then it is the owner's."""
    one = grant("ann", "stranger", operation=int(Operation.COPY))
    bought = buy(pair)
    owner = pair.balance("ann")
    pair.expect(calls.DeliverCopy(PAYER.address, one), ANN)
    assert pair.twin.token.balance(AT.vaults) == PRICE
    pair.advance(WINDOW_S)
    assert pair.refused(calls.CloseSale(bought), STRANGER) == "TooEarly"
    pair.advance(1)
    closed = told(pair.expect(calls.CloseSale(bought), STRANGER), SaleClosed)
    assert (closed.paid, closed.refunded) == (PRICE, 0)
    assert pair.balance("ann") == owner + PRICE
    assert pair.refused(calls.CloseSale(bought), STRANGER) == "WrongState"
    pair.compare_vaults()


@pytest.mark.parametrize("how", ["deadline", "given up", "revoked", "convicted"])
def test_what_was_not_delivered_is_refunded(pair: VaultPair, log: Log, how: str) -> None:
    """No delivery in time, a vault that gives up or revokes within the window, a vault convicted: the payer has its money."""
    money = pair.balance("payer")
    bought = buy(pair)
    one = grant("ann", "stranger", operation=int(Operation.COPY))
    who = STRANGER
    if how == "deadline":
        assert pair.refused(calls.CloseSale(bought), STRANGER) == "TooEarly"
        pair.advance(101)
        assert pair.refused(calls.DeliverCopy(PAYER.address, one), ANN) == "TooLate"
    elif how == "given up":
        who = ANN
    else:
        pair.expect(calls.DeliverCopy(PAYER.address, one), ANN)
    if how == "revoked":
        pair.expect(calls.EndGrant(one.struct(), Revoked.ASKED), ANN)
    elif how == "convicted":
        pair.advance(2 * WINDOW_S)
        other = msgspec.structs.replace(log.uses[0], result=ZERO_DIGEST)
        call = calls.ProveEquivocation(log.uses[0], signed(log.uses[0], ANN), other, signed(other, ANN))
        pair.expect(call, STRANGER)
    closed = told(pair.expect(calls.CloseSale(bought), who), SaleClosed)
    assert (closed.paid, closed.refunded) == (0, PRICE)
    assert pair.balance("payer") == money
    pair.compare_vaults()


def test_a_buyer_that_renounces_its_copy_has_paid(pair: VaultPair) -> None:
    """Who got the data and gives the licence back doesn't get the money back."""
    one = grant("ann", "stranger", operation=int(Operation.COPY))
    bought = buy(pair)
    pair.expect(calls.DeliverCopy(PAYER.address, one), ANN)
    pair.expect(calls.EndGrant(one.struct(), Revoked.ASKED), STRANGER)
    assert pair.refused(calls.CloseSale(bought), STRANGER) == "TooEarly"
    pair.advance(WINDOW_S + 1)
    assert told(pair.expect(calls.CloseSale(bought), STRANGER), SaleClosed).paid == PRICE
    pair.compare_vaults()


def test_a_price_raised_before_the_purchase_is_not_paid(pair: VaultPair) -> None:
    """The most that was offered bounds it, and what isn't for sale can't be bought."""
    pair.expect(calls.ListDataset(name_digest("hospital"), terms(2, price_wei=PRICE + 1)), ANN)
    call = calls.BuyCopy(dataset("ann"), digest("wish"), STRANGER.address, PRICE, pair.now_s + 100)
    assert pair.refused(call, PAYER) == "OutOfRange"
    pair.expect(calls.ListDataset(name_digest("hospital"), terms(3, price_wei=0)), ANN)
    assert pair.refused(call, PAYER) == "NotForSale"
    unknown = msgspec.structs.replace(call, dataset=digest("none"))
    assert pair.refused(unknown, PAYER) == "UnknownDataset"


def test_a_delivery_must_be_what_was_bought(pair: VaultPair) -> None:
    """Another request, requester or operation, or a licence that ends within the window, delivers nothing."""
    buy(pair)
    good = grant("ann", "stranger", operation=int(Operation.COPY))
    for bad, reason in (
        ({"request": digest("other")}, "WrongState"),
        ({"requester": PAYER.address}, "WrongState"),
        ({"operation": 1}, "OutOfRange"),
        ({"expires_s": pair.now_s + WINDOW_S}, "OutOfRange"),
    ):
        call = calls.DeliverCopy(PAYER.address, msgspec.structs.replace(good, **bad))
        assert pair.refused(call, ANN) == reason
    assert pair.refused(calls.DeliverCopy(PAYER.address, good), BOB) == "NotOwner"
    pair.expect(calls.DeliverCopy(PAYER.address, good), ANN)


def buy(pair: VaultPair) -> Digest:
    call = calls.BuyCopy(dataset("ann"), digest("wish"), STRANGER.address, PRICE, pair.now_s + 100)
    bought = told(pair.expect(call, PAYER), CopyBought)
    assert bought.price == PRICE
    assert bought.sale == sale_id(dataset("ann"), digest("wish"), STRANGER.address, PAYER.address)
    assert pair.refused(call, PAYER) == "WrongState"
    return bought.sale


# --- tokens: what no call struct stands for ---


def move(pair: VaultPair, one: Digest, source: bytes, to: bytes, value: int, sender: bytes) -> Any:
    arguments = (source, to, int.from_bytes(one), value, b"")
    return pair.bytecode.transact("Vaults", "safeTransferFrom", sender, pair.block(), *arguments)  # pyright: ignore[reportArgumentType]


def test_licences_are_soulbound_and_copies_move_only_if_granted_so(pair: VaultPair) -> None:
    """A query's licence stays with its key; a transferable copy moves, and is live for who holds it; a transfer of zero moves nothing."""
    bound = pair.granted(grant("ann", "payer")).struct()
    free = grant("ann", "payer", "copy", operation=int(Operation.COPY))
    pair.expect(calls.GrantAccess(free, True), ANN)
    source, to = PAYER.address, STRANGER.address
    assert move(pair, bound, source, to, 1, source).reason == "Soulbound"
    assert not hasattr(move(pair, bound, to, to, 0, to), "reason")
    assert move(pair, free.struct(), source, to, 1, to).reason == "ERC1155MissingApprovalForAll"
    moved = move(pair, free.struct(), source, to, 1, source)
    assert [(it.grant, it.source, it.to) for it in moved] == [(free.struct(), source, to)]
    read = pair.bytecode.read
    assert read("Vaults", "isLive", free.struct(), to)
    assert not read("Vaults", "isLive", free.struct(), source)
    assert read("Vaults", "isLive", bound, source)
    assert read("Vaults", "royaltyInfo", int.from_bytes(free.struct()), 1_000) == (
        "0x" + OWNERS["ann"].address.hex(),
        25,
    )
    for interface in ("01ffc9a7", "d9b67a26", "2a55205a"):
        assert read("Vaults", "supportsInterface", bytes.fromhex(interface))
