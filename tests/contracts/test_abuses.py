"""Each abuse that the contracts' docstrings name, tried on bytecode and twin at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import (
    AnswerPart,
    ChallengeAnswered,
    Convicted,
    EpochCleared,
    Settled,
    Slashed,
    Voted,
    WithdrawFinalized,
)
from clusterai.protocol import merkle
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.statements import EPOCH_LIST, Clearance, Verdict
from tests.contracts.cast import (
    AT,
    CHANNEL_POOL,
    DEPLOYER,
    HOTS,
    OWNERS,
    PAYER,
    RULES,
    STRANGER,
    Pair,
    channel,
    claim_row,
    consented,
    judged,
    receipts,
)

ANN, ANN_HOT = OWNERS["ann"], HOTS["ann"]
TO_ANN, FROM_PAYER_TO_ANN, TO_BOB, TO_BOB_HOT, TO_GATE, TO_STRANGER = CHANNEL_POOL
FRAUD, WITHHELD = 2, 3


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.populate()
    return pair


def commit(pair: Pair, who: str = "ann", count: int = 8, total: int = 2_000) -> tuple[int, list[Digest]]:
    """Commit the epoch that just ended; its number and leaves."""
    pair.advance(RULES.epoch_s)
    epoch = pair.now_s // RULES.epoch_s - 1
    leaves = receipts(who, epoch, count)
    pair.expect(calls.CommitEpoch(epoch, merkle.root(leaves), count, total), HOTS[who])
    return epoch, leaves


def draw(pair: Pair, epoch: int, count: int, who: str = "ann") -> tuple[list[int], list[int]]:
    """Let the next epoch's beacon come; the drawn indices and the others."""
    pair.advance(RULES.epoch_s)
    pair.expect(calls.Tick(), STRANGER)
    drawn = [i for i in range(count) if pair.twin.court.drawn(OWNERS[who].address, epoch, i)]
    return drawn, [i for i in range(count) if i not in drawn]


def history(pair: Pair, who: str = "ann") -> None:
    """So many of its receipts were found valid that the governor's rate is all that is drawn of small work."""
    epoch, _ = commit(pair, who, total=0)
    draw(pair, epoch, 8, who)
    pair.found_valid(who, epoch, 10**8)


def accuse(
    epoch: int, index: int, leaf: Digest = ZERO_DIGEST, outcome: int = FRAUD, who: str = "ann"
) -> Verdict:
    return Verdict(OWNERS[who].address, epoch, index, leaf, outcome, ZERO_DIGEST)


def vote(verdict: Verdict, voter: str, leaves: list[Digest] | None = None) -> calls.Vote:
    proof = merkle.proof(leaves, verdict.index) if leaves else ()
    return calls.Vote(verdict, proof, judged(verdict, HOTS[voter]))


def convict_list(pair: Pair, epoch: int, who: str = "ann") -> None:
    verdict = accuse(epoch, EPOCH_LIST, who=who)
    pair.expect(vote(verdict, "val"), STRANGER)
    pair.expect(vote(verdict, "vic"), STRANGER)


# --- registry ---


def test_participant_registers_once(pair: Pair) -> None:
    """An owner can't register again, and neither can a hot key."""
    assert pair.refused(calls.Register(1, ZERO_DIGEST), ANN) == "AlreadyBound"
    assert pair.refused(calls.Register(1, ZERO_DIGEST), ANN_HOT) == "AlreadyBound"


def test_hot_key_serves_one_owner(pair: Pair) -> None:
    """Nobody takes over another's hot key, not even after it was revoked; its owner may take it back."""
    pair.expect(calls.Revoke(ANN_HOT.address), ANN)
    assert pair.refused(consented(OWNERS["bob"], ANN_HOT), OWNERS["bob"]) == "AlreadyBound"
    assert pair.refused(calls.UpdateCard(ZERO_DIGEST), ANN_HOT) == "NotRegistered"
    pair.expect(consented(ANN, ANN_HOT), ANN)
    pair.expect(calls.UpdateCard(ZERO_DIGEST), ANN_HOT)


def test_strangers_address_is_not_bound_without_its_consent(pair: Pair) -> None:
    """A merchant's address can't be tied to a convict, nor by a consent that it gave to another owner."""
    assert pair.refused(consented(ANN, STRANGER, signer=ANN), ANN) == "NoConsent"
    stolen = consented(OWNERS["bob"], STRANGER)
    assert pair.refused(stolen, ANN) == "NoConsent"
    pair.expect(stolen, OWNERS["bob"])


def test_owner_key_cannot_be_revoked(pair: Pair) -> None:
    """An owner stays its own hot key."""
    assert pair.refused(calls.Revoke(ANN.address), ANN) == "NotYourKey"


def test_unbonding_stake_is_still_slashed(pair: Pair) -> None:
    """Taking the stake out after the crime doesn't save it."""
    epoch, _ = commit(pair)
    pair.expect(calls.Unbond(10_000), ANN)
    convict_list(pair, epoch)
    pair.advance(RULES.unbond_delay_s)
    assert pair.refused(calls.Withdraw(), ANN) == "ZeroAmount"
    assert pair.twin.token.balance(ANN.address) == 990_000


def test_second_unbond_starts_the_delay_anew(pair: Pair) -> None:
    """The delay counts from the last unbond."""
    pair.expect(calls.Unbond(1), ANN)
    pair.advance(RULES.unbond_delay_s - 1)
    pair.expect(calls.Unbond(1), ANN)
    pair.advance(RULES.unbond_delay_s - 1)
    assert pair.refused(calls.Withdraw(), ANN) == "StillUnbonding"
    pair.advance(1)
    pair.expect(calls.Withdraw(), ANN)


def test_unbonding_stake_has_no_vote(pair: Pair) -> None:
    """A validator that takes its stake out stops counting at once."""
    epoch, _ = commit(pair)
    pair.expect(calls.Unbond(50_000), OWNERS["val"])
    assert pair.refused(vote(accuse(epoch, EPOCH_LIST), "val"), STRANGER) == "NotValidator"


def test_slash_pays_half_and_burns_half(pair: Pair) -> None:
    """The first voter's owner gets the bounty and the rest leaves the supply, so reporting oneself costs half."""
    epoch, _ = commit(pair)
    before, supply = pair.twin.token.balance(OWNERS["val"].address), pair.twin.token.supply()
    convict_list(pair, epoch)
    assert pair.twin.token.balance(OWNERS["val"].address) == before + 5_000
    assert pair.twin.token.supply() == supply - 5_000


def test_barred_owner_does_not_come_back(pair: Pair) -> None:
    """A slashed owner can't bond again."""
    epoch, _ = commit(pair)
    convict_list(pair, epoch)
    assert pair.refused(calls.Bond(1), ANN) == "OwnerBarred"


# --- commitments and the draw ---


def test_running_epoch_is_not_committed(pair: Pair) -> None:
    """An epoch is committed after it ended."""
    now = pair.now_s // RULES.epoch_s
    assert pair.refused(calls.CommitEpoch(now, ZERO_DIGEST, 1, 1), ANN_HOT) == "EpochNotOver"


def test_epoch_is_committed_once_and_in_order(pair: Pair) -> None:
    """A provider can't replace a commitment, nor add one before it."""
    epoch, _ = commit(pair)
    assert pair.refused(calls.CommitEpoch(epoch, ZERO_DIGEST, 1, 1), ANN_HOT) == "EpochBefore"
    assert pair.refused(calls.CommitEpoch(epoch - 1, ZERO_DIGEST, 1, 1), ANN_HOT) == "EpochBefore"


def test_beacon_of_the_commitments_own_epoch_does_not_draw(pair: Pair) -> None:
    """The beacon that a provider could see when it committed decides nothing."""
    pair.advance(RULES.epoch_s)
    pair.expect(calls.Tick(), STRANGER)
    epoch, leaves = commit(pair)
    pair.expect(calls.Tick(), STRANGER)
    assert pair.twin.court.drawn(ANN.address, epoch, 0) is None
    verdict = accuse(epoch, 0, leaves[0])
    assert pair.refused(vote(verdict, "val", leaves), STRANGER) == "BeaconPending"


def test_beacon_is_recorded_once_an_epoch(pair: Pair) -> None:
    """A second tick in an epoch can't redraw."""
    epoch, _ = commit(pair)
    draw(pair, epoch, 8)
    beacon = pair.twin.court.beacon_of(ANN.address, epoch)
    pair.advance(1)
    assert pair.expect(calls.Tick(), STRANGER) == ()
    pair.advance(RULES.epoch_s)
    pair.expect(calls.Tick(), STRANGER)
    assert pair.twin.court.beacon_of(ANN.address, epoch) == beacon
    assert pair.bytecode.read("Court", "beaconOf", ANN.address, epoch) == beacon


def test_draw_is_the_same_in_view_and_twin(pair: Pair) -> None:
    """Anyone recomputes from events which receipts are audited."""
    epoch, _ = commit(pair, count=200)
    drawn, _ = draw(pair, epoch, 200)
    assert drawn == [i for i in range(200) if pair.bytecode.read("Court", "drawn", ANN.address, epoch, i)]
    assert 60 < len(drawn) < 140


@settings(max_examples=30, deadline=None, derandomize=True)
@given(count=st.integers(1, 33), data=st.data())
def test_proofs_fit_one_position(count: int, data: st.DataObject) -> None:
    """The Court accepts a leaf at its own index and at no other."""
    pair = Pair()
    pair.populate()
    epoch, leaves = commit(pair, count=count)
    draw(pair, epoch, count)
    index, claimed = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count))
    verdict = accuse(epoch, claimed, leaves[index])
    call = calls.Vote(verdict, merkle.proof(leaves, index), judged(verdict, HOTS["vow"]))
    outcome = pair.do(call, STRANGER)
    if claimed == index:
        drawn = pair.twin.court.drawn(ANN.address, epoch, index)
        assert isinstance(outcome, tuple) if drawn else getattr(outcome, "reason", "") == "NotDrawn"
    else:
        assert getattr(outcome, "reason", "") == "NotInCommitment"


# --- verdicts ---


def test_fraud_needs_two_thirds(pair: Pair) -> None:
    """Half of the stake accuses in vain; with two thirds the provider is convicted, once."""
    epoch, leaves = commit(pair)
    drawn, _ = draw(pair, epoch, 8)
    verdict = accuse(epoch, drawn[0], leaves[drawn[0]])
    assert [type(e) for e in pair.expect(vote(verdict, "val", leaves), STRANGER)] == [Voted]
    events = pair.expect(vote(verdict, "vow", leaves), STRANGER)
    assert any(isinstance(e, Slashed) and e.amount == 10_000 for e in events)
    assert isinstance(events[-1], Convicted)
    assert pair.refused(vote(verdict, "vic", leaves), STRANGER) == "AlreadyConvicted"


def test_validator_votes_once(pair: Pair) -> None:
    """The same validator counts once for a receipt, whatever the evidence."""
    epoch, _ = commit(pair)
    verdict = accuse(epoch, EPOCH_LIST)
    pair.expect(vote(verdict, "val"), STRANGER)
    assert pair.refused(vote(verdict, "val"), STRANGER) == "AlreadyVoted"
    other = Verdict(ANN.address, epoch, EPOCH_LIST, ZERO_DIGEST, FRAUD, Digest(b"\1" * 32))
    assert pair.refused(vote(other, "val"), STRANGER) == "AlreadyVoted"


def test_undrawn_receipt_is_not_judged(pair: Pair) -> None:
    """A validator can't go looking for a receipt that suits it."""
    history(pair)
    epoch, leaves = commit(pair)
    _, others = draw(pair, epoch, 8)
    verdict = accuse(epoch, others[0], leaves[others[0]])
    assert pair.refused(vote(verdict, "val", leaves), STRANGER) == "NotDrawn"


def test_strangers_and_providers_do_not_vote(pair: Pair) -> None:
    """A verdict signed by anyone but a staked validator counts nothing."""
    epoch, _ = commit(pair)
    verdict = accuse(epoch, EPOCH_LIST)
    for key in (STRANGER, ANN_HOT, HOTS["bob"]):
        assert pair.refused(calls.Vote(verdict, (), judged(verdict, key)), STRANGER) == "NotValidator"


def test_verdict_after_the_window_is_refused(pair: Pair) -> None:
    """What has been paid stays paid."""
    epoch, _ = commit(pair)
    pair.advance(RULES.window_s + 1)
    assert pair.refused(vote(accuse(epoch, EPOCH_LIST), "val"), STRANGER) == "AfterWindow"


@pytest.mark.parametrize("phase", [0, 1, 14, 30, 45, 58, 59])
def test_verdict_in_the_last_second_finds_the_money_held(pair: Pair, phase: int) -> None:
    """Claimed at once after the commitment, anywhere in a window, and judged at the deadline: all is forfeited."""
    pair.now_s = (pair.now_s // RULES.window_s + 2) * RULES.window_s + phase - RULES.epoch_s
    epoch, _ = commit(pair)
    assert pair.now_s % RULES.window_s == phase
    pair.expect(calls.Claim((claim_row(TO_ANN, 2_000),)), ANN_HOT)
    pair.advance(RULES.window_s)
    assert pair.expect(calls.Settle(ANN.address, AT.token), ANN) == ()
    convict_list(pair, epoch)
    pair.advance(10 * RULES.window_s)
    assert pair.expect(calls.Settle(ANN.address, AT.token), ANN) == ()
    pair.expect(calls.Reclaim(TO_ANN), STRANGER)
    assert pair.twin.channels.channel(pair.twin.channels.channel_id(TO_ANN)).total_claimed == 0


def test_clearance_needs_the_draw_and_the_root(pair: Pair) -> None:
    """An epoch is cleared for its own root, after its beacon, by two thirds, once."""
    epoch, leaves = commit(pair)
    right = Clearance(ANN.address, epoch, merkle.root(leaves), 4, ZERO_DIGEST)
    wrong = Clearance(ANN.address, epoch, ZERO_DIGEST, 4, ZERO_DIGEST)
    assert pair.refused(calls.Clear(right, judged(right, HOTS["val"])), STRANGER) == "BeaconPending"
    draw(pair, epoch, 8)
    assert pair.refused(calls.Clear(wrong, judged(wrong, HOTS["val"])), STRANGER) == "WrongRoot"
    pair.expect(calls.Clear(right, judged(right, HOTS["val"])), STRANGER)
    assert pair.refused(calls.Clear(right, judged(right, HOTS["val"])), STRANGER) == "AlreadyVoted"
    events = pair.expect(calls.Clear(right, judged(right, HOTS["vic"])), STRANGER)
    assert isinstance(events[-1], EpochCleared)
    assert pair.refused(calls.Clear(right, judged(right, HOTS["vow"])), STRANGER) == "AlreadyCleared"


# --- challenges ---


def test_withheld_counts_only_past_an_unanswered_deadline(pair: Pair) -> None:
    """Withholding is proven by a challenge on chain that ran out; the challenger then has its bond back."""
    epoch, _ = commit(pair)
    drawn, _ = draw(pair, epoch, 8)
    verdict = accuse(epoch, drawn[0], outcome=WITHHELD)
    assert pair.refused(vote(verdict, "val"), STRANGER) == "NotChallenged"
    pair.expect(calls.Challenge(ANN.address, epoch, drawn[0]), HOTS["val"])
    assert pair.refused(calls.RecoverBond(ANN.address, epoch, drawn[0]), STRANGER) == "AnswerPending"
    pair.advance(RULES.answer_s)
    assert pair.refused(vote(verdict, "val"), STRANGER) == "AnswerPending"
    pair.advance(1)
    late = calls.AnswerChallenge(ANN.address, epoch, drawn[0], 0, 1, b"late")
    assert pair.refused(late, ANN_HOT) == "AnswerTooLate"
    pair.expect(vote(verdict, "val"), STRANGER)
    assert isinstance(pair.expect(vote(verdict, "vic"), STRANGER)[-1], Convicted)
    pair.expect(calls.RecoverBond(ANN.address, epoch, drawn[0]), STRANGER)
    assert pair.twin.token.balance(HOTS["val"].address) == 1_000_000


def test_answered_challenge_pays_the_provider(pair: Pair) -> None:
    """Harassing a provider that answers costs the bond, and no Withheld verdict passes."""
    epoch, _ = commit(pair)
    drawn, _ = draw(pair, epoch, 8)
    pair.expect(calls.Challenge(ANN.address, epoch, drawn[0]), HOTS["val"])
    answer = calls.AnswerChallenge(ANN.address, epoch, drawn[0], 0, 1, b"sealed")
    assert pair.refused(answer, HOTS["bob"]) == "NotProvider"
    assert isinstance(pair.expect(answer, ANN_HOT)[1], ChallengeAnswered)
    assert pair.twin.token.balance(ANN.address) == 991_000
    assert pair.refused(answer, ANN_HOT) == "AlreadyAnswered"
    pair.advance(RULES.answer_s + 1)
    verdict = accuse(epoch, drawn[0], outcome=WITHHELD)
    assert pair.refused(vote(verdict, "val"), STRANGER) == "AlreadyAnswered"
    assert pair.refused(calls.RecoverBond(ANN.address, epoch, drawn[0]), STRANGER) == "NotChallenged"


def part(epoch: int, number: int, parts: int, size: int = 100) -> calls.AnswerChallenge:
    return calls.AnswerChallenge(ANN.address, epoch, EPOCH_LIST, number, parts, bytes(size))


def test_an_answer_may_come_in_parts_in_any_order(pair: Pair) -> None:
    """It is answered, and paid the bond once, when the last of them came; each counts once."""
    epoch, _ = commit(pair)
    pair.expect(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["val"])
    before = pair.twin.token.balance(ANN.address)
    for number in (2, 0, 3):
        (event,) = pair.expect(part(epoch, number, 4), ANN_HOT)
        assert isinstance(event, AnswerPart)
    assert pair.refused(part(epoch, 2, 4), ANN_HOT) == "AlreadyReceived"
    assert pair.twin.token.balance(ANN.address) == before
    assert isinstance(pair.expect(part(epoch, 1, 4), ANN_HOT)[1], ChallengeAnswered)
    assert pair.twin.token.balance(ANN.address) == before + RULES.challenge_bond_wei
    assert pair.refused(part(epoch, 1, 4), ANN_HOT) == "AlreadyAnswered"
    pair.expect(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["vic"])
    assert len(pair.expect(part(epoch, 1, 4), ANN_HOT)) == 1, "another demand begins anew"


def test_the_first_part_binds_the_count(pair: Pair) -> None:
    """A later part can't make the answer longer or shorter, and none has more than 64 parts."""
    epoch, _ = commit(pair)
    pair.expect(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["val"])
    for number, parts in ((0, 0), (0, 65), (64, 64), (255, 255)):
        assert pair.refused(part(epoch, number, parts), ANN_HOT) == "WrongParts"
    pair.expect(part(epoch, 0, 2), ANN_HOT)
    for number, parts in ((1, 1), (0, 1), (1, 3), (2, 2)):
        assert pair.refused(part(epoch, number, parts), ANN_HOT) == "WrongParts"
    pair.expect(part(epoch, 1, 2), ANN_HOT)


def test_the_longest_answer_is_taken(pair: Pair) -> None:
    """64 parts of 24,576 bytes, each within a tenth of a block's gas."""
    epoch, _ = commit(pair)
    pair.expect(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["val"])
    for number in range(64):
        events = pair.expect(part(epoch, number, 64, 24_576), ANN_HOT)
        assert pair.bytecode.gas_used < 3_000_000
        assert len(events) == (3 if number == 63 else 1)


def test_who_begins_in_time_has_as_long_again_for_the_rest(pair: Pair) -> None:
    """Parts count until `finish`, not a second longer, and only where the first came by the deadline."""
    epoch, _ = commit(pair)
    pair.expect(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["val"])
    pair.advance(RULES.answer_s)
    pair.expect(part(epoch, 0, 3), ANN_HOT)
    pair.advance(RULES.answer_s)
    pair.expect(part(epoch, 1, 3), ANN_HOT)
    verdict = accuse(epoch, EPOCH_LIST, outcome=WITHHELD)
    assert pair.refused(vote(verdict, "val"), STRANGER) == "AnswerPending"
    assert pair.refused(calls.RecoverBond(ANN.address, epoch, EPOCH_LIST), STRANGER) == "AnswerPending"
    pair.advance(1)
    assert pair.refused(part(epoch, 2, 3), ANN_HOT) == "AnswerTooLate"
    pair.expect(calls.RecoverBond(ANN.address, epoch, EPOCH_LIST), STRANGER)
    pair.expect(vote(verdict, "val"), STRANGER)
    assert isinstance(pair.expect(vote(verdict, "vic"), STRANGER)[-1], Convicted)


def test_a_staller_cant_outlast_the_window(pair: Pair) -> None:
    """Challenged in the last second and answering half, it is still voted on in time."""
    epoch, _ = commit(pair)
    pair.advance(RULES.window_s - 3 * RULES.answer_s)
    pair.expect(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["val"])
    pair.advance(RULES.answer_s)
    pair.expect(part(epoch, 0, 2), ANN_HOT)
    pair.advance(RULES.answer_s + 1)
    verdict = accuse(epoch, EPOCH_LIST, outcome=WITHHELD)
    pair.expect(vote(verdict, "val"), STRANGER)
    pair.advance(RULES.answer_s - 1)
    assert isinstance(pair.expect(vote(verdict, "vic"), STRANGER)[-1], Convicted)


def test_no_epoch_holds_more_receipts_than_an_answer(pair: Pair) -> None:
    """A list that couldn't be shown on chain isn't committed."""
    pair.advance(RULES.epoch_s)
    epoch = pair.now_s // RULES.epoch_s - 1
    assert pair.refused(calls.CommitEpoch(epoch, ZERO_DIGEST, 8_193, 1), ANN_HOT) == "TooManyReceipts"
    pair.expect(calls.CommitEpoch(epoch, ZERO_DIGEST, 8_192, 1), ANN_HOT)


def test_challenge_leaves_time_for_answer_and_votes(pair: Pair) -> None:
    """Three times answer_s must remain, or the challenge is refused."""
    epoch, _ = commit(pair)
    pair.advance(RULES.window_s - 3 * RULES.answer_s + 1)
    assert pair.refused(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["val"]) == "AfterWindow"


def test_undrawn_receipt_is_not_challenged(pair: Pair) -> None:
    """Only what was drawn, or the list, can be demanded; and only by a validator."""
    history(pair)
    epoch, _ = commit(pair)
    drawn, others = draw(pair, epoch, 8)
    assert pair.refused(calls.Challenge(ANN.address, epoch, others[0]), HOTS["val"]) == "NotDrawn"
    assert pair.refused(calls.Challenge(ANN.address, epoch, 8), HOTS["val"]) == "NotInCommitment"
    assert pair.refused(calls.Challenge(ANN.address, epoch, drawn[0]), STRANGER) == "NotValidator"


# --- parameters ---


def governed(rate_ppm: int, answer_s: int = RULES.answer_s, bond: int = 0) -> calls.SetParameters:
    return calls.SetParameters(calls.Parameters(rate_ppm, RULES.bounty_bps, answer_s, bond))


def test_a_new_rate_draws_only_what_is_committed_after_it(pair: Pair) -> None:
    """Neither a captured governor nor an honest one redraws what was committed; each commitment names its rate."""
    history(pair)
    pair.expect(governed(1_000_000), DEPLOYER)
    first, _ = commit(pair, total=0)
    pair.expect(governed(1), DEPLOYER)
    drawn, others = draw(pair, first, 8)
    assert (len(drawn), others) == (8, [])
    second, _ = commit(pair, total=0)
    pair.expect(governed(1_000_000), DEPLOYER)
    assert draw(pair, second, 8)[0] == []
    rates = [pair.twin.court.commitment(ANN.address, epoch).rate_ppm for epoch in (first, second)]
    assert rates == [1_000_000, 1]


def test_a_demand_keeps_the_time_and_the_bond_it_was_made_with(pair: Pair) -> None:
    """New parameters neither cut an answer short nor change what it pays."""
    epoch, _ = commit(pair)
    pair.expect(calls.Challenge(ANN.address, epoch, EPOCH_LIST), HOTS["val"])
    pair.expect(governed(1_000_000, answer_s=1), DEPLOYER)
    before = pair.twin.token.balance(ANN.address)
    pair.advance(RULES.answer_s)
    pair.expect(part(epoch, 0, 2), ANN_HOT)
    pair.advance(RULES.answer_s)
    pair.expect(part(epoch, 1, 2), ANN_HOT)
    assert pair.twin.token.balance(ANN.address) == before + RULES.challenge_bond_wei


def test_nobody_else_sets_parameters_and_none_out_of_bounds(pair: Pair) -> None:
    """Twin and bytecode refuse the same, by the same names."""
    assert pair.refused(governed(500_000), ANN) == "OwnableUnauthorizedAccount"
    for wrong in (governed(0), governed(10**6 + 1), governed(1, answer_s=0), governed(1, answer_s=11)):
        assert pair.refused(wrong, DEPLOYER) == "ParameterOutOfRange"


# --- equivocation ---


def test_two_faced_validator_is_slashed_even_after_revoking_its_key(pair: Pair) -> None:
    """Contradictory verdicts cost the stake; a revoked hot key still binds its owner; the finder is paid."""
    first, second = accuse(7, 1, Digest(b"\1" * 32)), accuse(7, 1, Digest(b"\2" * 32))
    pair.expect(calls.Revoke(HOTS["vow"].address), OWNERS["vow"])
    call = calls.Equivocation(first, judged(first, HOTS["vow"]), second, judged(second, OWNERS["vow"]))
    pair.expect(call, STRANGER)
    assert pair.twin.token.balance(STRANGER.address) == 1_000_000 + 10_000
    assert pair.refused(call, STRANGER) == "AlreadySlashed"


def test_other_evidence_is_no_equivocation(pair: Pair) -> None:
    """An honest validator that audited twice is safe, and one validator's statement can't be used on another."""
    first = accuse(7, 1)
    again = Verdict(ANN.address, 7, 1, ZERO_DIGEST, FRAUD, Digest(b"\1" * 32))
    withheld = accuse(7, 1, outcome=WITHHELD)
    same = calls.Equivocation(first, judged(first, HOTS["vow"]), again, judged(again, HOTS["vow"]))
    assert pair.refused(same, STRANGER) == "NotContradictory"
    mixed = calls.Equivocation(first, judged(first, HOTS["vow"]), withheld, judged(withheld, HOTS["vic"]))
    assert pair.refused(mixed, STRANGER) == "NotValidator"


# --- channels ---


def test_claim_is_held_for_more_than_a_window(pair: Pair) -> None:
    """Whenever in a window it is claimed, money matures after one window at least and two at most."""
    commit(pair)
    for phase in (0, 29, 59):
        pair.now_s = (pair.now_s // RULES.window_s + 1) * RULES.window_s + phase
        channel_id = pair.twin.channels.channel_id(TO_ANN)
        total = pair.twin.channels.channel(channel_id).total_claimed + 100
        pair.expect(calls.Claim((claim_row(TO_ANN, total),)), ANN_HOT)
        pair.advance(RULES.window_s)
        assert pair.expect(calls.Settle(ANN.address, AT.token), STRANGER) == ()
        pair.advance(RULES.window_s)
        assert isinstance(pair.expect(calls.Settle(ANN.address, AT.token), STRANGER)[0], Settled)
    assert pair.twin.token.balance(ANN.address) == 990_300


def test_voucher_is_not_claimed_twice(pair: Pair) -> None:
    """Repeating a row, in one batch or later, adds nothing."""
    commit(pair)
    row = claim_row(TO_ANN, 500)
    pair.expect(calls.Claim((row, row)), ANN_HOT)
    assert pair.expect(calls.Claim((row,)), ANN_HOT) == ()
    assert pair.twin.channels.receiver(ANN.address, AT.token).total_claimed == 500


def test_provider_claims_at_most_what_it_committed(pair: Pair) -> None:
    """Neither in one channel nor over several, nor through the address of its hot key."""
    commit(pair, total=1_000)
    rows = (claim_row(TO_ANN, 600), claim_row(FROM_PAYER_TO_ANN, 401))
    assert pair.refused(calls.Claim(rows), ANN) == "ExceedsCommitted"
    commit(pair, "bob", total=1_000)
    pair.expect(calls.Claim((claim_row(TO_BOB_HOT, 900),)), HOTS["bob"])
    assert pair.refused(calls.Claim((claim_row(TO_BOB, 101),)), HOTS["bob"]) == "ExceedsCommitted"


def test_forged_and_overdrawn_vouchers_are_refused(pair: Pair) -> None:
    """Another's signature, more than the voucher says, more than the channel has: each is refused."""
    commit(pair, total=10_000)
    assert pair.refused(calls.Claim((claim_row(TO_ANN, 5, signer=STRANGER),)), ANN) == "InvalidSignature"
    assert pair.refused(calls.Claim((claim_row(TO_ANN, 6, 5),)), ANN) == "ExceedsVoucher"
    assert pair.refused(calls.Claim((claim_row(TO_ANN, 5_001),)), ANN) == "ExceedsBalance"
    assert pair.refused(calls.Claim((claim_row(TO_ANN, 5),)), STRANGER) == "NotReceiver"
    assert pair.refused(calls.Claim(()), ANN) == "BatchSizeOutOfRange"


def test_merchant_that_is_no_provider_needs_no_commitment(pair: Pair) -> None:
    """Plain x402 receivers claim without the Court, and wait out the window as well."""
    pair.expect(calls.Claim((claim_row(TO_GATE, 700),)), HOTS["gate"])
    pair.expect(calls.Claim((claim_row(TO_STRANGER, 700),)), STRANGER)


def test_payer_cannot_outrun_vouchers(pair: Pair) -> None:
    """During the withdrawal delay the receiver claims, and the withdrawal shrinks to what is left."""
    commit(pair)
    pair.expect(calls.InitiateWithdraw(TO_ANN, 5_000), HOTS["gate"])
    assert pair.refused(calls.FinalizeWithdraw(TO_ANN), HOTS["gate"]) == "WithdrawalNotReady"
    pair.expect(calls.Claim((claim_row(TO_ANN, 1_500),)), ANN_HOT)
    pair.advance(900)
    events = pair.expect(calls.FinalizeWithdraw(TO_ANN), HOTS["gate"])
    assert events[0] == WithdrawFinalized(pair.twin.channels.channel_id(TO_ANN), 3_500)
    assert pair.refused(calls.InitiateWithdraw(TO_ANN, 1), STRANGER) == "NotPayer"


def test_conviction_refunds_the_payers_at_once(pair: Pair) -> None:
    """Held money returns to its channels, and the payers withdraw without waiting: nobody can claim any more."""
    epoch, _ = commit(pair)
    pair.expect(calls.Claim((claim_row(TO_ANN, 1_200), claim_row(FROM_PAYER_TO_ANN, 300))), ANN)
    assert pair.refused(calls.Reclaim(TO_ANN), STRANGER) == "NotBarred"
    convict_list(pair, epoch)
    assert pair.refused(calls.Claim((claim_row(TO_ANN, 1_300),)), ANN) == "ReceiverBarred"
    assert pair.refused(calls.Deposit(TO_ANN, 1), HOTS["gate"]) == "ReceiverBarred"
    for config in (TO_ANN, FROM_PAYER_TO_ANN):
        pair.expect(calls.Reclaim(config), STRANGER)
        assert pair.refused(calls.Reclaim(config), STRANGER) == "NothingHeld"
    pair.expect(calls.InitiateWithdraw(FROM_PAYER_TO_ANN, 5_000), PAYER)
    pair.expect(calls.FinalizeWithdraw(FROM_PAYER_TO_ANN), PAYER)
    pair.compare()


def test_matured_money_survives_conviction(pair: Pair) -> None:
    """What outlived its window is the receiver's, paid or not; only what is held is lost."""
    commit(pair)
    pair.expect(calls.Claim((claim_row(TO_ANN, 1_000),)), ANN)
    pair.advance(2 * RULES.window_s)
    epoch, _ = commit(pair)
    pair.expect(calls.Claim((claim_row(TO_ANN, 1_700),)), ANN)
    convict_list(pair, epoch)
    pair.expect(calls.Reclaim(TO_ANN), STRANGER)
    assert isinstance(pair.expect(calls.Settle(ANN.address, AT.token), STRANGER)[0], Settled)
    assert pair.twin.token.balance(ANN.address) == 991_000


def test_revoking_the_receiving_hot_key_frees_nothing(pair: Pair) -> None:
    """A provider paid at its hot key's address loses what is held there, revoked or not."""
    epoch, _ = commit(pair, "bob")
    pair.expect(calls.Claim((claim_row(TO_BOB_HOT, 500),)), HOTS["bob"])
    pair.expect(calls.Revoke(HOTS["bob"].address), OWNERS["bob"])
    convict_list(pair, epoch, "bob")
    pair.advance(5 * RULES.window_s)
    assert pair.expect(calls.Settle(HOTS["bob"].address, AT.token), STRANGER) == ()
    pair.expect(calls.Reclaim(TO_BOB_HOT), STRANGER)


def test_incomplete_or_hasty_channels_take_no_money(pair: Pair) -> None:
    """A channel names all parties and gives the receiver at least 15 minutes."""
    nobody = channel(PAYER, Address(bytes(20)), ANN.address)
    assert pair.refused(calls.Deposit(nobody, 1), PAYER) == "IncompleteConfig"
    hasty = type(TO_ANN)(
        TO_ANN.payer,
        TO_ANN.payer_authorizer,
        TO_ANN.receiver,
        TO_ANN.receiver,
        TO_ANN.token,
        899,
        TO_ANN.salt,
    )
    assert pair.refused(calls.Deposit(hasty, 1), PAYER) == "WithdrawDelayOutOfRange"
    other = type(TO_ANN)(
        TO_ANN.payer, TO_ANN.payer_authorizer, TO_ANN.receiver, TO_ANN.receiver, ANN.address, 900, TO_ANN.salt
    )
    assert pair.refused(calls.Deposit(other, 1), PAYER) == ""


# --- credit ---


def test_credit_goes_to_gateways_only(pair: Pair) -> None:
    """Money for an account reaches the gateway's owner; an address that is no gateway gets none."""
    before = pair.twin.token.balance(OWNERS["gate"].address)
    pair.expect(calls.Fund(HOTS["gate"].address, ZERO_DIGEST, 100), STRANGER)
    assert pair.twin.token.balance(OWNERS["gate"].address) == before + 100
    assert pair.refused(calls.Fund(ANN.address, ZERO_DIGEST, 100), STRANGER) == "NotGateway"
    assert pair.refused(calls.Fund(HOTS["gate"].address, ZERO_DIGEST, 0), DEPLOYER) == "ZeroAmount"
