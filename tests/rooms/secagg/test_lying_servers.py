"""A server that lies to members, or about the sum, is refused or caught by what it signed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterai.protocol.signing import Key
from clusterai.vault.adapters.masking import Libraries
from clusterai.vault.core.secagg import graph, vectors
from clusterai.vault.core.secagg.collector import Failed, Summed
from clusterai.vault.core.secagg.member import Contribution, Member, Terms, objection
from clusterai.vault.core.secagg.messages import (
    Advert,
    Boxes,
    Claim,
    Endorsed,
    Endorsement,
    Invite,
    Masked,
    Neighbours,
    Opened,
    Refused,
    Roll,
    advert_digest,
    claim_digest,
    roll_digest,
)
from clusterai.vault.core.secagg.primitives import commitment
from clusterai.vault.core.secagg.transcript import (
    Opening,
    Transcript,
    drawn_chunks,
    fault,
    fault_for,
    replay,
    sum_fault,
    transcript_digest,
)
from tests.rooms.secagg.played import LIBRARIES, SERVER, Table, inputs, keys, spec, summed


def signed_roll(
    table: Table, roll: Roll, claims: tuple[Claim, ...], dealers: tuple[int, ...] | None = None
) -> Roll:
    there = roll.dealers if dealers is None else dealers
    told = roll_digest(table.spec.round(), there, claims)
    return Roll(roll.round, there, claims, SERVER.sign(told))


def up_to_roll(table: Table) -> Roll:
    """All members masked; nobody endorsed yet."""
    table.dead_from = dict.fromkeys(range(len(table.members)), 3)
    outcome = table.play()
    assert isinstance(outcome, Failed)
    assert outcome.phase == "endorsements"
    request = table.server.request(0)
    assert isinstance(request, Roll)
    return request


def code(reply: object) -> str:
    assert isinstance(reply, Refused), reply
    return reply.code


def test_two_survivor_lists_are_never_both_opened():
    """Half the members are shown a roll without member 0, half with it: no quorum stands behind either, nobody opens."""
    table = Table(9)
    whole = up_to_roll(table)
    without = signed_roll(table, whole, whole.claims[1:])
    rolls = {i: without if i >= 5 else whole for i in range(9)}
    endorsed: dict[int, bytes] = {}
    for i, member in enumerate(table.members):
        reply = member.answer(rolls[i], 0)
        assert isinstance(reply, Endorsement)
        endorsed[i] = reply.signature
        assert (
            code(member.answer(without if i < 5 else signed_roll(table, whole, whole.claims[:8]), 0))
            == "asked"
        )
    for group in (range(5), range(5, 9), range(9)):
        shown = Endorsed(table.spec.round(), tuple((i, endorsed[i]) for i in group))
        for member in table.members:
            assert code(member.answer(shown, 0)) == "endorsements"


def test_with_as_many_colluders_as_stated_two_lists_still_fail():
    """Colluders endorse both rolls; with n + c < 2 quorum the honest ones can't be split into two quorums."""
    count = 10
    colluders = graph.colluders_tolerated(count)
    assert colluders == 3
    honest = count - colluders
    for split in range(honest + 1):
        both = (split + colluders >= graph.quorum(count), honest - split + colluders >= graph.quorum(count))
        assert not all(both)


def test_a_roll_that_leaves_a_member_out_is_seen_by_it():
    """A member whose vector was taken and whose name is not on the roll knows, and endorses nothing."""
    table = Table(6)
    whole = up_to_roll(table)
    assert (
        code(table.members[2].answer(signed_roll(table, whole, (*whole.claims[:2], *whole.claims[3:])), 0))
        == "roll"
    )
    assert table.members[2].left_out


def test_a_roll_with_another_weight_or_too_few_is_refused():
    """Weights are the members' own words, and fewer than two thirds are no sum."""
    table = Table(6)
    whole = up_to_roll(table)
    heavier = (*whole.claims[:5], msgspec.structs.replace(whole.claims[5], weight=600))
    for wrong in (
        signed_roll(table, whole, heavier),
        signed_roll(table, whole, whole.claims[:3]),
        msgspec.structs.replace(whole, signature=bytes(65)),
        signed_roll(table, whole, whole.claims, whole.dealers[:-1]),
        signed_roll(table, whole, (whole.claims[0], *whole.claims)),
        msgspec.structs.replace(whole, round=bytes(32)),
    ):
        assert code(table.members[0].answer(wrong, 0)) in ("roll", "round")


def test_a_dealer_hidden_from_some_is_noticed():
    """The roll must name the dealers whose boxes came: else masks would not cancel, and shares of two kinds could leak."""
    table = Table(6, dead_from={5: 2})
    table.dead_from.update(dict.fromkeys(range(5), 3))
    table.play()
    roll = table.server.request(0)
    assert isinstance(roll, Roll)
    assert 5 in roll.dealers
    assert code(table.members[0].answer(signed_roll(table, roll, roll.claims, roll.dealers[:5]), 0)) == "roll"


def told(table: Table, adverts: tuple[Advert, ...]) -> Neighbours:
    return Neighbours(
        table.spec.round(), tuple((a.member, a.mask_key, a.seal_key, a.signature) for a in adverts)
    )


def test_keys_swapped_by_the_server_are_refused():
    """A server in the middle can't advertise in a member's name."""
    table = Table(4)
    adverts: list[Any] = [member.answer(Invite(table.spec), 0) for member in table.members]
    own = LIBRARIES.public(b"\x01" * 32)
    forged = msgspec.structs.replace(adverts[2], seal_key=own)
    resigned = msgspec.structs.replace(forged, signature=SERVER.sign(table.spec.round()))
    for wrong in (
        (adverts[1], forged, adverts[3]),
        (adverts[1], resigned, adverts[3]),
        (adverts[1], adverts[1], adverts[3]),
    ):
        assert code(table.members[0].answer(told(table, wrong), 0)) == "advert"
    assert code(table.members[0].answer(Neighbours(table.spec.round(), ()), 0)) == "few"


def test_a_box_handed_back_to_its_dealer_opens_nothing():
    """Both ends derive one key; the dealer's number inside keeps a reflected box from passing as the neighbour's."""
    table = Table(3)
    adverts: list[Any] = [member.answer(Invite(table.spec), 0) for member in table.members]
    dealt: list[Any] = []
    for i, member in enumerate(table.members):
        others = tuple(a for a in adverts if a.member != i)
        dealt.append(member.answer(told(table, others), 0))
    to_one = next(box for box in dealt[0].boxes if box[0] == 1)
    theirs = next(box for box in dealt[2].boxes if box[0] == 0)
    reply = table.members[0].answer(Boxes(table.spec.round(), ((1, *to_one[1:]), (2, *theirs[1:]))), 0)
    assert isinstance(reply, Masked)
    assert reply.rubbish == (1,)


def test_a_member_that_opened_has_nothing_left():
    """After its one opening a member forgot its secrets; another roll of the same round gets nothing."""
    table = Table(6)
    outcome = summed(table.play())
    roll = outcome.transcript.roll
    fewer = signed_roll(table, roll, roll.claims[:-1])
    assert code(table.members[0].answer(fewer, 0)) == "asked"
    other = Endorsed(table.spec.round(), outcome.transcript.endorsements[:-1])
    assert code(table.members[0].answer(other, 0)) == "asked"
    again = table.members[0].answer(Endorsed(table.spec.round(), outcome.transcript.endorsements), 0)
    assert isinstance(again, Opened)
    assert not any(getattr(table.members[0], name) for name in ("_own_seed", "_mask_seed", "_held", "_keys"))


def test_an_expired_round_opens_nothing():
    """Past its end a member has forgotten the round, whoever endorsed what."""
    table = Table(4)
    outcome = summed(table.play())
    late = Endorsed(table.spec.round(), outcome.transcript.endorsements)
    assert code(table.members[0].answer(late, table.spec.expires_s + 1)) == "expired"


def test_phases_out_of_order_are_refused():
    """No endorsement without a vector, no opening without an endorsement."""
    table = Table(4)
    outcome = summed(table.play())
    fresh = Table(4)
    for frame in (
        Neighbours(table.spec.round(), ()),
        Boxes(table.spec.round(), ()),
        outcome.transcript.roll,
        Endorsed(table.spec.round(), outcome.transcript.endorsements),
    ):
        assert code(fresh.members[0].answer(frame, 0)) == "order"


def test_words_of_an_old_round_are_worth_nothing():
    """Adverts, rolls and endorsements name their round; replayed in the next they are refused, by members and by servers."""
    old, new = Table(4), Table(4, nonce=b"\x01" * 32)
    first, second = summed(old.play()), summed(new.play())
    member = Table(4, nonce=b"\x02" * 32).members[0]
    for frame in (Invite(old.spec), Neighbours(old.spec.round(), ()), first.transcript.roll):
        assert code(member.answer(frame, 0)) in ("spec", "round")
    grafted = msgspec.structs.replace(second.transcript, roll=first.transcript.roll)
    assert fault(resigned(grafted), LIBRARIES) is not None
    stale = msgspec.structs.replace(
        second.transcript,
        adverts=tuple(
            msgspec.structs.replace(a, round=new.spec.round(), signature=b.signature)
            for a, b in zip(first.transcript.adverts, second.transcript.adverts, strict=True)
        ),
    )
    wrong = fault(resigned(stale), LIBRARIES)
    assert wrong is not None
    assert wrong.code == "advert"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"threshold": 1}, "unsafe"),
        ({"degree": 3}, "graph"),
        ({"degree": 4, "threshold": 2}, "unsafe"),
        ({"threshold": 40}, "graph"),
        ({"groups": 5}, "few"),
        ({"groups": 3, "group": 3}, "group"),
        ({"expires_s": 5}, "expired"),
        ({"length": 200}, "long"),
    ],
)
def test_unsafe_rounds_are_refused_before_anything_is_said(changes: dict[str, Any], expected: str):
    """Too few members, too few shares, too weak a graph: a vault says why it doesn't take part."""
    who = keys(20)
    asked = spec(who, **changes)
    me = graph.members(msgspec.structs.replace(asked, group=0))[0]
    found = objection(asked, me, Terms(most_values=100, least_members=5), 6)
    assert found is not None
    assert found.code == expected


def test_a_stranger_or_a_doubled_cohort_is_refused():
    """Who isn't drawn takes no part; a member listed twice would count for two."""
    who = keys(5)
    stranger = Key(b"\x09" * 32).address
    assert code(objection(spec(who), stranger, Terms(), 0)) == "stranger"
    doubled = spec([*who, next(iter(who))])
    assert code(objection(doubled, next(iter(who)), Terms(), 0)) == "cohort"
    assert objection(spec(who), next(iter(who)), Terms(), 0) is None


# --- lies about the sum ---


def resigned(transcript: Transcript) -> Transcript:
    """The server signs its lie."""
    return msgspec.structs.replace(transcript, signature=SERVER.sign(transcript_digest(transcript)))


def lie(table: Table, outcome: Summed, wrong: Any) -> tuple[Transcript, Any, bytes]:
    """A transcript and openings of another sum than the true one."""
    bits, length = table.spec.bits, table.spec.length
    packed = vectors.pack(vectors.wrap(np.asarray(wrong), bits), bits)
    tree = vectors.commit(packed, length, bits)
    transcript = resigned(msgspec.structs.replace(outcome.transcript, sum_root=tree.root))

    def opening(chunk: int) -> Opening:
        true = table.server.opening(chunk)
        return Opening(chunk, true.parts, vectors.chunk_bytes(packed, chunk, bits), tree.path(chunk))

    return transcript, opening, packed


def test_a_server_that_drops_or_weighs_a_member_is_caught_by_one_chunk():
    """The roll names all; the sum lacks one, counts one double, or scales one: every chunk is wrong."""
    table = Table(6, length=3000)
    outcome = summed(table.play())
    true = outcome.values
    for wrong in (true - table.inputs[3], true + table.inputs[1], true + 9 * table.inputs[0], -true):
        transcript, opening, packed = lie(table, outcome, wrong)
        assert fault(transcript, LIBRARIES) is None
        assert sum_fault(transcript, packed) is None
        for chunk in drawn_chunks(transcript, b"later beacon", 2):
            found = replay(transcript, opening(chunk), LIBRARIES)
            assert found is not None
            assert found.code == "sum"


def test_a_server_that_changes_one_value_is_caught_in_its_chunk_only():
    """What one chunk doesn't see, all chunks together do."""
    table = Table(4, length=3000)
    outcome = summed(table.play())
    wrong = outcome.values.copy()
    wrong[1100] += 1
    transcript, opening, _ = lie(table, outcome, wrong)
    found = [replay(transcript, opening(chunk), LIBRARIES) for chunk in range(vectors.chunks(3000))]
    assert [None if f is None else f.code for f in found] == [None, None, "sum", None, None, None]


def test_another_sum_than_the_signed_one_is_seen_at_once():
    """What is handed out must stand under the signed root."""
    table = Table(4)
    outcome = summed(table.play())
    other = bytes(len(outcome.packed))
    found = sum_fault(outcome.transcript, other)
    assert found is not None
    assert found.code == "sum"
    assert sum_fault(outcome.transcript, other[:-1]) is not None


def test_openings_that_members_never_signed_are_refused():
    """Masked values are bound by the members' own signatures: a server can't present others."""
    table = Table(4, length=1200)
    outcome = summed(table.play())
    true = table.server.opening(1)
    part, path = true.parts[2]
    forged = (bytes(len(part)), path)
    found = replay(
        outcome.transcript,
        msgspec.structs.replace(true, parts=(*true.parts[:2], forged, true.parts[3])),
        LIBRARIES,
    )
    assert found is not None
    assert found.code == "opening"
    moved = msgspec.structs.replace(true, chunk=0)
    assert replay(outcome.transcript, moved, LIBRARIES) is not None
    assert replay(outcome.transcript, msgspec.structs.replace(true, chunk=99), LIBRARIES) is not None
    assert (
        replay(outcome.transcript, msgspec.structs.replace(true, parts=true.parts[1:]), LIBRARIES) is not None
    )


def test_transcripts_with_false_seeds_claims_or_endorsements_are_refused():
    """Each seed is bound by its member; each endorsement is its member's; all is bound by the server's signature."""
    table = Table(9, dead_from={4: 2})
    good = summed(table.play()).transcript
    assert fault(good, LIBRARIES) is None
    assert len(good.dropped) == 1
    change = msgspec.structs.replace
    lies: dict[str, Transcript] = {
        "unsigned": change(good, sum_root=bytes(32)),
        "seed": resigned(change(good, own=(bytes(16), *good.own[1:]))),
        "shape": resigned(change(good, dropped=())),
        "roll": resigned(change(good, endorsements=good.endorsements[1:])),
        "advert": resigned(
            change(good, adverts=(change(good.adverts[0], mask_key=bytes(32)), *good.adverts[1:]))
        ),
    }
    # Its member conspires: it signed a key with which nobody can agree, for the transcript alone.
    [first, *others] = good.adverts
    said = advert_digest(first.round, first.member, bytes(32), first.seal_key)
    signed = table.keys[graph.members(table.spec)[first.member]].sign(said)
    useless = change(first, mask_key=bytes(32), signature=signed)
    lies["advert that its member signed"] = resigned(change(good, adverts=(useless, *others)))
    lies["seed of the dropped"] = resigned(change(good, dropped=((4, bytes(16)),)))
    lies["seed: root"] = resigned(change(good, roots=(bytes(32), *good.roots[1:])))
    for name, lied in lies.items():
        found = fault(lied, LIBRARIES)
        assert found is not None
        assert name.startswith(found.code), (name, found)


def test_a_member_sees_a_transcript_of_another_roll():
    """What was endorsed is what must be published."""
    table = Table(6)
    good = summed(table.play()).transcript
    member: Member = table.members[0]
    assert fault_for(good, member.endorsed) is None
    other = resigned(msgspec.structs.replace(good, roll=signed_roll(table, good.roll, good.roll.claims[1:])))
    found = fault_for(other, member.endorsed)
    assert found is not None
    assert found.code == "equivocation"


# --- members that cheat the server ---


class Lying:
    """A member whose answers are altered on their way out."""

    def __init__(self, member: Member, alter: Any) -> None:
        self.member, self.alter = member, alter

    def answer(self, frame: Any, now_s: float) -> Any:
        return self.alter(self.member, self.member.answer(frame, now_s))


def lying(alter: Any) -> Callable[[Member], Lying]:
    return partial(Lying, alter=alter)


def test_malformed_answers_count_as_dropping_out_and_are_blamed():
    """False keys, unsigned shares, vectors of another size, claims of another vector: the sum goes on without them."""

    def key(_: Member, reply: Any) -> Any:
        return msgspec.structs.replace(reply, mask_key=bytes(32)) if isinstance(reply, Advert) else reply

    def vector(_: Member, reply: Any) -> Any:
        return msgspec.structs.replace(reply, vector=reply.vector[1:]) if isinstance(reply, Masked) else reply

    def claim(_: Member, reply: Any) -> Any:
        return (
            msgspec.structs.replace(reply, vector=bytes(len(reply.vector)))
            if isinstance(reply, Masked)
            else reply
        )

    table = Table(9, replaced={1: lying(key), 4: lying(vector), 6: lying(claim)})
    outcome = summed(table.play())
    assert (outcome.values == table.expected((1, 4, 6))).all()
    assert set(outcome.blamed) == {graph.members(table.spec)[i] for i in (1, 4, 6)}


def test_a_copied_vector_is_blamed_or_adds_nothing_that_its_copier_chose():
    """With its author's claim it is nobody's. Signed anew by who copied it, the masks don't cancel: the sum is longer than any bound, and its group is left out."""
    seen: list[Masked] = []

    def author(_: Member, reply: Any) -> Any:
        if isinstance(reply, Masked):
            seen.append(reply)
        return reply

    def copier(_: Member, reply: Any) -> Any:
        return seen[0] if isinstance(reply, Masked) else reply

    table = Table(9, replaced={0: lying(author), 1: lying(copier)})
    outcome = summed(table.play())
    assert outcome.blamed == {graph.members(table.spec)[1]: "a claim that is not its own"}
    assert (outcome.values == table.expected((1,))).all()

    def signed_anew(_: Member, reply: Any) -> Any:
        if not isinstance(reply, Masked):
            return reply
        theirs, spec, who = seen[-1], table.spec, graph.members(table.spec)[1]
        root = vectors.commit(theirs.vector, spec.length, spec.bits).root
        bound = commitment(reply.round, root, reply.own)
        signature = table.keys[who].sign(claim_digest(reply.round, 1, bound, reply.claim.weight))
        return msgspec.structs.replace(
            reply, vector=theirs.vector, claim=Claim(1, bound, reply.claim.weight, signature)
        )

    table = Table(9, replaced={0: lying(author), 1: lying(signed_anew)})
    outcome = summed(table.play())
    honest = np.abs(table.expected(())).max()
    assert np.linalg.norm(outcome.values) > 100 * honest


def test_false_shares_are_left_out_and_their_holder_is_blamed():
    """A holder that opens other shares than it was dealt is named; two thirds of true ones are enough."""

    def other_shares(_: Member, reply: Any) -> Any:
        if not isinstance(reply, Opened):
            return reply
        return msgspec.structs.replace(reply, shares=tuple((j, bytes(16)) for j, _ in reply.shares))

    table = Table(9, threshold=5, replaced={2: lying(other_shares)}, dead_from={0: 2})
    outcome = summed(table.play())
    assert (outcome.values == table.expected((0,))).all()
    assert set(outcome.blamed) == {graph.members(table.spec)[2]}


def test_a_member_that_opens_another_own_mask_is_replaced_by_its_holders():
    """A false seed is refused by its commitment, and the true one comes from the shares."""

    def other_seed(_: Member, reply: Any) -> Any:
        return msgspec.structs.replace(reply, own=bytes(16)) if isinstance(reply, Opened) else reply

    table = Table(9, replaced={3: lying(other_seed)})
    outcome = summed(table.play())
    assert (outcome.values == table.expected(())).all()
    assert set(outcome.blamed) == {graph.members(table.spec)[3]}


class Sharper(Libraries):
    """Deals shares of other secrets than it masks with, or boxes that nobody can open."""

    def __init__(self, rubbish: bool) -> None:
        self.rubbish = rubbish

    def split(self, threshold: int, count: int, secret: bytes) -> tuple[bytes, ...]:
        return super().split(threshold, count, secret if self.rubbish else bytes(16))

    def seal(self, secret: bytes, public: bytes, plain: bytes) -> bytes:
        return bytes(76) if self.rubbish else super().seal(secret, public, plain)


def dealing(rubbish: bool) -> Callable[[Member], Member]:
    def made(member: Member) -> Member:
        who = graph.members(member.spec)[5]
        return Member(member.spec, keys(9)[who], who, Contribution(inputs(9)[5], 6), Sharper(rubbish))

    return made


@pytest.mark.parametrize("rubbish", [False, True])
@pytest.mark.parametrize("dies_in", [2, 4])
def test_a_dealer_of_wrong_shares_ends_the_round_named(rubbish: bool, dies_in: int):
    """Its secret is needed and can't be had: no sum rather than a wrong one, and its name for the next round."""
    table = Table(9, replaced={5: dealing(rubbish)}, dead_from={5: dies_in})
    outcome = table.play()
    assert isinstance(outcome, Failed)
    assert set(outcome.blamed) == {graph.members(table.spec)[5]}


def test_a_dealer_of_wrong_shares_who_stays_changes_nothing():
    """Its own seed comes from itself; nobody needs the shares."""
    table = Table(9, replaced={5: dealing(rubbish=False)})
    assert (summed(table.play()).values == table.expected(())).all()


def test_lonely_cries_of_rubbish_accuse_nobody():
    """One member who says that a dealer sealed rubbish is not believed against the dealer."""

    def cries(_: Member, reply: Any) -> Any:
        return msgspec.structs.replace(reply, rubbish=(0, 2)) if isinstance(reply, Masked) else reply

    table = Table(9, replaced={1: lying(cries)})
    outcome = summed(table.play())
    assert (outcome.values == table.expected(())).all()
    assert not outcome.blamed


def test_a_contribution_is_of_the_spec_s_length():
    """A vault's own code can't put a vector of another length into a round."""
    who = keys(3)
    asked = spec(who)
    me = graph.members(asked)[0]
    with pytest.raises(AssertionError):
        Member(asked, who[me], me, Contribution(np.zeros(3, np.int64)), LIBRARIES)


def test_a_member_that_wants_three_in_its_sum_opens_none_of_two():
    """Of two each would read the other's part: whether the third died or the server left it out, nothing is opened."""

    def wary(at: int) -> Callable[[Member], Member]:
        def made(member: Member) -> Member:
            who = graph.members(member.spec)[at]
            return Member(member.spec, keys(3)[who], who, Contribution(inputs(3)[at], at + 1, 3), LIBRARIES)

        return made

    replaced = {0: wary(0), 1: wary(1)}
    assert isinstance(Table(3, dead_from={2: 2}).play(), Summed)
    outcome = Table(3, dead_from={2: 2}, replaced=replaced).play()
    assert isinstance(outcome, Failed)
    assert outcome.phase == "endorsements"
    assert isinstance(Table(3, replaced=replaced).play(), Summed)
