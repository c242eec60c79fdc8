"""The vault's book: whatever is asked of it, in whatever order, and wherever it dies, no budget is exceeded and nothing said is taken back."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.vaults import Operation, SignedRequest
from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.terms import Approve, AskedFor, ChainTime, Denied, Deny, Fixed, Gave, No, PolicySet
from tests.rooms.vault.bookworld import ALICE, BOB, DATASET, NETWORK, POLICY, START_S, Crash, World


def live(world: World) -> None:
    """A history in which everything happens."""
    first = world.grant(ALICE, MICRO)
    auto = world.ask(BOB, MICRO // 2, salt=1)
    assert isinstance(auto, Gave)
    second = world.book.entries[auto.value.request].grant
    assert second is not None
    world.step(Deny(world.ask(BOB, MICRO, salt=2).value.request))
    world.spend(first, 1, 300_000, 10)
    world.spend(second, 2, 200_000)
    world.close(2)
    world.close(1)
    world.tick(61)
    world.spend(first, 3, 300_000)
    world.revoke(first)
    world.close(3)
    world.spend(second, 4, 100_000)
    world.tick(61)
    world.chain_ends(second, 1)
    world.tick(100_000)


def effects_of_a_life() -> int:
    world = World()
    live(world)
    world.check()
    return world.effects


@pytest.mark.parametrize("after", range(effects_of_a_life()))
@pytest.mark.parametrize("compacted", [False, True], ids=["", "compacted"])
def test_a_crash_between_two_effects_loses_nothing(after: int, compacted: bool) -> None:
    """Wherever it dies: every acknowledged spend counts, every signed use stays at its index, revoked stays revoked on chain too."""
    world = World()
    world.crash_after = after
    with pytest.raises(Crash):
        live(world)
    world.restart()
    if compacted:
        world.compact()
        world.restart()
    world.tick(31)
    world.tick(100_000)
    world.tick(61)
    world.check()
    assert world.open_orders() == []
    assert world.anchors == [] or world.anchors[-1].count == len(world.book.leaves())


def test_a_life_ends_with_all_of_it_anchored() -> None:
    """Without a crash: four uses, one of them closed because nobody came back, and all in the last anchor."""
    world = World()
    live(world)
    world.tick(61)
    world.check()
    assert len(world.book.leaves()) == 4
    assert world.anchors[-1].count == 4
    assert world.book.total_spent_micro == 900_000
    assert world.book.key_epoch == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["spend", "close", "revoke", "crash", "tick", "compact", "policy"]),
            st.integers(0, 3),
            st.integers(0, 12),
            st.integers(0, 1_500_000),
        ),
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_history_exceeds_a_budget(history: list[tuple[str, int, int, int]]) -> None:
    """Any order of spends, closings, revocations, restarts and changes of the policy."""
    world = World()
    grants = [world.grant(who, MICRO, salt=at) for at, who in enumerate((ALICE, BOB, ALICE, ALICE))]
    for what, which, order, epsilon in history:
        match what:
            case "spend":
                world.spend(grants[which], order, epsilon, epsilon // 10_000)
            case "close":
                world.close(order)
            case "revoke":
                world.revoke(grants[which])
            case "crash":
                world.restart()
            case "compact":
                world.compact()
            case "policy":
                world.step(PolicySet(POLICY))
            case _:
                world.tick(40)
        world.check()


def denied(world: World, *permit: Any) -> str:
    with pytest.raises(Denied) as no:
        world.book.permit(*permit, now_s=world.now_s)
    return no.value.code


def test_each_budget_refuses_and_says_what_is_left() -> None:
    """Of the grant, of the requester, of everybody: the smallest of the three speaks."""
    world = World()
    first, second = world.grant(ALICE, 2 * MICRO, salt=1), world.grant(ALICE, 2 * MICRO, salt=2)
    third = world.grant(BOB, 2 * MICRO, salt=3)
    assert isinstance(world.spend(first, 1, 1_500_000), Gave)
    assert world.spend(first, 2, 600_000) == No(
        "budget", "ε 0.6 is more than the 0.5 left to this grant: ask for less, or for noisier answers"
    )
    assert world.spend(second, 3, 1_600_000).detail.startswith(
        "ε 1.6 is more than the 1.5 left to this requester"
    )
    assert isinstance(world.spend(second, 3, 1_500_000), Gave)
    assert world.spend(third, 4, 1_100_000).detail.startswith("ε 1.1 is more than the 1 left to this vault")
    assert world.spend(third, 4, MICRO, 1_001) == No(
        "delta", "δ 1001e-12 is more than the 1000e-12 left to this vault"
    )
    assert isinstance(world.spend(third, 4, MICRO, 1_000), Gave)
    world.check()


def test_a_grant_has_so_many_uses() -> None:
    """Also of those that spend nothing; an order that comes again is no other use."""
    world = World()
    grant = world.grant(ALICE, MICRO, uses=2)
    assert all(isinstance(world.spend(grant, order, 0), Gave) for order in (1, 1, 2, 2))
    assert world.spend(grant, 3, 0).code == "spent"
    assert denied(world, grant, ALICE.address, Operation.QUERY, ZERO_DIGEST) == "spent"


def test_an_order_spends_once_and_the_same() -> None:
    """Again with another ε it is refused, and nothing is spent."""
    world = World()
    grant = world.grant(ALICE)
    world.spend(grant, 1, 100)
    assert world.spend(grant, 1, 200).code == "replayed"
    assert world.book.total_spent_micro == 100


def test_a_permit_is_for_who_asked_for_what_was_granted() -> None:
    """A stranger, another operation, another program, an unknown grant, and one that is over."""
    world = World()
    grant = world.grant(ALICE, operation=Operation.CODE, code=b"print(1)")
    code = Digest(world.book.entries[next(iter(world.book.entries))].signed.request.code)
    world.book.permit(grant, ALICE.address, Operation.CODE, code, world.now_s)
    assert denied(world, grant, BOB.address, Operation.CODE, code) == "requester"
    assert denied(world, grant, ALICE.address, Operation.QUERY, code) == "operation"
    assert denied(world, grant, ALICE.address, Operation.CODE, Digest(b"x" * 32)) == "other_code"
    assert denied(world, Digest(b"g" * 32), ALICE.address, Operation.CODE, code) == "unknown"
    world.now_s = START_S + 86_400
    assert denied(world, grant, ALICE.address, Operation.CODE, code) == "expired"
    assert world.spend(grant, 1, 0).code == "expired"


def test_one_who_asks_with_one_program_and_sends_another_is_refused() -> None:
    """The program that comes with a request is the one whose digest was signed."""
    world = World()
    signed = ALICE.request(
        DATASET, NETWORK, Operation.CODE, "to count", MICRO, 1, 0, START_S + 9, code=b"print(1)"
    )
    assert world.step(AskedFor(signed, "to count", b"print(2)")).code == "other_code"
    assert world.step(AskedFor(signed, "to steal", b"print(1)")).code == "purpose"
    assert isinstance(world.step(AskedFor(signed, "to count", b"print(1)")), Gave)


def test_the_inbox_is_bounded() -> None:
    """Four requests of one key wait, sixty-four of all; what nobody decides in two weeks is dropped."""
    world = World()
    given = [world.ask(ALICE, salt=salt) for salt in range(5)]
    assert [isinstance(it, Gave) for it in given] == [True] * 4 + [False]
    assert given[4].code == "busy"
    world.tick(86_400)
    assert world.book.waiting() == []


def test_automatic_grants_promise_no_more_than_there_is() -> None:
    """What living grants could still spend counts: the next one waits for the owner."""
    world = World()
    states = [world.ask(who, MICRO // 2, salt=salt).value.state for salt in range(5) for who in (ALICE, BOB)]
    assert states == ["approved"] * 8 + ["asked"] * 2
    whys = [world.book.why_waiting(it) for it in world.book.entries.values()]
    assert whys[:8] == [""] * 8
    assert whys[8] == (
        "ε 0.5 is asked, and of the ε 4 left all requesters' living grants hold 4: it waits until they end, or for the owner"
    )
    mine = world.ask(ALICE, MICRO // 2, salt=9).value
    assert world.book.why_waiting(mine).startswith("ε 0.5 is asked")


def test_what_waits_for_a_budget_is_granted_when_it_is_free() -> None:
    """Without asking again and without the owner, who was told why it waits; one that only the owner may grant waits on."""
    world = World()
    first = world.ask(ALICE, MICRO // 2).value.request
    for salt in range(1, 6):
        world.ask(ALICE, MICRO // 2, salt=salt)
    waits = world.ask(ALICE, MICRO // 2, salt=6).value
    owners = world.ask(BOB, MICRO, salt=7).value
    assert "of the ε 3 left this requester's living grants hold 3" in world.book.why_waiting(waits)
    assert world.book.why_waiting(owners) == ""
    world.tick()
    assert world.book.entries[waits.request].state == "asked"
    grant = world.book.entries[first].grant
    assert grant is not None
    world.revoke(grant)
    world.tick()
    assert world.book.entries[waits.request].state == "granted"
    assert world.book.entries[owners.request].state == "asked"


def test_what_no_budget_can_ever_hold_is_refused_at_once() -> None:
    """Spent ε doesn't come back: neither the requester nor the owner is left to wait for it."""
    world = World()
    grant, late = world.grant(ALICE, 2 * MICRO), world.ask(ALICE, 2 * MICRO, salt=1)
    world.spend(grant, 1, 1_500_000)
    assert world.ask(ALICE, 2 * MICRO, salt=2) == No(
        "budget", "ε 2 is asked, and ε 1.5 is left to this requester, for ever: ask for less"
    )
    assert world.step(Approve(late.value.request)).code == "budget"
    assert isinstance(world.ask(ALICE, 1_500_000, salt=3), Gave)


def test_the_chains_budget_holds_whatever_the_policy_says_later() -> None:
    """An owner who raises its policy's ε can't spend more than it listed: that would cost its stake."""
    world = World()
    grant = world.grant(ALICE, 2 * MICRO)
    world.step(Fixed(MICRO, 1))
    assert world.spend(grant, 1, MICRO + 1).code == "budget"
    world.restart()
    assert world.spend(grant, 1, MICRO + 1).code == "budget"
    assert isinstance(world.spend(grant, 2, MICRO), Gave)


def test_a_clock_that_goes_back_makes_no_older_use() -> None:
    """A use after an anchored log is never of a time before it: that would convict an honest vault."""
    world = World()
    grant = world.grant(ALICE)
    world.spend(grant, 1, 1)
    world.close(1)
    world.tick(61)
    assert world.anchors[-1].count == 1
    world.now_s -= 5_000
    world.spend(grant, 2, 1)
    world.close(2)
    world.restart()
    world.spend(grant, 3, 1)
    world.close(3)
    world.check()


@pytest.mark.parametrize("by", ["tick", "chain", "permit", "spend", "restart"])
def test_a_clock_that_goes_back_revives_no_grant(by: str) -> None:
    """A grant that was once over stays over, after a restart and a compaction too; whoever found it over, and whatever our clock says."""
    world = World()
    grant, other = world.grant(ALICE), world.grant(ALICE, salt=1)
    ends_s = START_S + 86_400
    permit = (grant, ALICE.address, Operation.QUERY, ZERO_DIGEST)
    if by == "chain":
        world.step(ChainTime(ends_s))
    else:
        world.now_s = ends_s
    match by:
        case "tick":
            world.tick(0)
        case "permit":
            assert denied(world, *permit) == "expired"
        case "spend":
            assert world.spend(grant, 1, 0).code == "expired"
        case _:
            world.restart()
    world.now_s = START_S + 60
    assert denied(world, *permit) == "expired"
    assert world.spend(grant, 2, 0).code == "expired"
    world.tick()
    for again in (world.restart, world.compact, world.restart):
        again()
        assert denied(world, *permit) == "expired"
        assert world.spend(grant, 3, 0).code == "expired"
    assert world.book.total_spent_micro == 0
    # Only what was found over is: the other is when its time was seen to be over, and a new one isn't.
    looked = by in ("permit", "spend")
    assert isinstance(world.spend(other, 4, 0), Gave) == looked
    assert isinstance(world.spend(world.grant(ALICE, salt=2), 5, 0), Gave)
    world.check()


def test_a_grant_that_is_over_holds_no_budget() -> None:
    """What it could still have spent is there for others: by the policy, without the owner."""
    world = World()
    states = [world.ask(ALICE, MICRO // 2, salt=salt).value.state for salt in range(7)]
    assert states == ["approved"] * 6 + ["asked"]
    world.tick(86_400)
    world.now_s = START_S
    assert world.ask(ALICE, MICRO // 2, salt=7).value.state == "approved"


def test_a_request_that_its_requester_didnt_sign_is_refused() -> None:
    """Nobody asks in another's name, nor with a request that was changed after it was signed."""
    world = World()
    signed = ALICE.request(DATASET, NETWORK, Operation.QUERY, "to count", MICRO, 1, 0, START_S + 9)
    forged = SignedRequest(signed.request, BOB.key.sign(signed.request.signing_digest(NETWORK)))
    changed = SignedRequest(msgspec.structs.replace(signed.request, uses=2), signed.signature)
    for it in (forged, changed):
        assert world.step(AskedFor(it, "to count", b"")).code == "signature"
    assert world.book.entries == {}
