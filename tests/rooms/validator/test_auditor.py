"""The auditor among honest participants and bad weather: nobody is wronged."""

import zlib
from typing import cast

import pytest
from msgspec.structs import replace

from clusterai.audit.adapters.sealing import SealKey
from clusterai.cli.local.wish import WINDOW_S
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.rules import local_rules
from clusterai.protocol.messages import EpochOpened
from clusterai.protocol.statements import EPOCH_LIST, Outcome
from clusterai.runtime.machine import Unlinked
from tests.rooms.validator.theatre import MODEL, RULES, TOKEN, Gateway, Provider, Stage, key


def test_honest_work_is_cleared() -> None:
    """An honest epoch is opened over a gateway, checked, and cleared on chain; nothing is challenged."""
    stage = Stage()
    stage.serve(4)
    stage.commit()
    stage.play(40)
    assert stage.cleared == 1
    assert stage.told(events.EpochCleared)[0].audited == 4
    assert not stage.told(events.Challenged)
    assert not stage.told(events.Voted)
    assert len(stage.seat.kept) == 4


def test_only_drawn_receipts_are_opened() -> None:
    """At a rate of a quarter, transcripts of the drawn receipts come and no other leaves the provider."""
    stage = Stage(rate_ppm=250_000)
    stage.serve(24)
    stage.commit()
    stage.play(40)
    audited = stage.told(events.EpochCleared)[0].audited
    assert 0 < audited < 24
    assert len(stage.seat.kept) == audited


def test_three_validators_agree_without_talking() -> None:
    """Clearances of several honest validators are one statement, so they add up on chain."""
    stage = Stage(validators=3)
    stage.serve(3)
    stage.commit()
    stage.play(40)
    assert stage.cleared == 1


def test_nothing_is_done_before_the_beacon() -> None:
    """Until the beacon draws, the provider isn't asked: nobody knows what to ask for."""
    stage = Stage()
    stage.serve(2)
    stage.commit()
    while not stage.told(events.EpochCommitted):
        stage.play(1)
    assert not stage.seat.machine.open_dockets()[0].asks
    stage.play(14)
    assert stage.told(events.BeaconRecorded)


def test_the_validator_records_the_beacon_if_nobody_does() -> None:
    """A network without traffic still gets its draw."""
    stage = Stage()
    stage.serve(1)
    stage.commit()
    stage.play(40)
    assert any(isinstance(it.call, calls.Tick) for it in stage.seat.submitted)
    assert stage.cleared == 1


def test_a_slow_provider_is_waited_for() -> None:
    """A provider that is away for less than the patience is opened when it comes back, and not challenged."""
    stage = Stage()
    stage.serve(2)
    stage.commit()
    stage.provider.away = True
    stage.play(20)
    stage.provider.away = False
    stage.play(35)
    assert stage.cleared == 1
    assert not stage.told(events.Challenged)


@pytest.mark.parametrize("gone_s", [0, 10, 20, 30])
def test_in_a_local_networks_window_nobody_is_convicted_for_a_restart(gone_s: int) -> None:
    """The window of `clusterai up`: whoever is away for 90 s from its commitment on, or from a moment before it was opened, is back in time."""
    window = local_rules(WINDOW_S)
    rules = replace(RULES, window_s=window.window_s, unbond_delay_s=window.unbond_delay_s)
    stage = Stage(rules=rules)
    stage.serve(2)
    stage.commit()
    stage.play(gone_s)
    stage.provider.away = True
    stage.play(90)
    stage.provider.away = False
    stage.play(30)
    assert stage.cleared == 1
    assert not stage.told(events.Challenged)
    assert not stage.convicted


def test_a_restarted_validator_asks_before_it_challenges() -> None:
    """Back long after the beacon, it gives the provider its whole patience first."""
    stage = Stage(rules=replace(RULES, window_s=120, unbond_delay_s=240))
    stage.serve(2)
    stage.commit()
    stage.seat.stopped = True
    stage.play(70)
    stage.seat.stopped = False
    stage.seat.restart()
    stage.play(15)
    assert stage.cleared == 1
    assert not stage.told(events.Challenged)


def test_a_provider_cut_off_from_gateways_answers_on_chain() -> None:
    """Challenged on chain, an honest provider opens there, is cleared, and keeps the challengers' bonds."""
    stage = Stage()
    stage.serve(2)
    stage.commit()
    stage.provider.away = True
    stage.play(58)
    assert {it.index for it in stage.told(events.Challenged)} == {EPOCH_LIST, 0, 1}
    assert len(stage.told(events.ChallengeAnswered)) == 3
    assert not stage.told(events.Voted)
    assert stage.cleared == 1


class CutsFine(Provider):
    """Answers in parts as small as it likes; keeps some of them to itself until told."""

    kept_back = 0

    def give(self, epoch: int, index: int, packed: tuple[bytes, ...]) -> None:
        """Every byte range of the opening is a part by itself, so it can be cut anywhere."""
        plain = b"".join(zlib.decompress(self.box.unseal(part[1:]) or b"") for part in packed)
        size = -(-len(plain) // 8)
        pieces = [plain[at : at + size] for at in range(0, len(plain), size)]
        fine = [b"\x00" + zlib.compress(piece) for piece in pieces]
        for part in range(len(fine) - 1, self.kept_back - 1, -1):
            call = calls.AnswerChallenge(self.owner.address, epoch, index, part, len(fine), fine[part])
            self.stage.submit(self.hot, call)

    @property
    def box(self) -> SealKey:
        return self.stage.seat.box


def test_an_answer_is_put_together_from_its_parts() -> None:
    """Eight parts in the open, the last first; the validator keeps them until the answer is deep enough, and no longer."""
    stage = Stage(CutsFine)
    stage.serve(2)
    stage.commit()
    stage.provider.away = True
    stage.play(58)
    assert len(stage.told(events.AnswerPart)) == 24
    assert len(stage.told(events.ChallengeAnswered)) == 3
    assert stage.cleared == 1
    docket = stage.seat.machine.docket(stage.provider.owner.address, max(stage.provider.epochs))
    assert docket is not None
    assert all(challenge.answered and not challenge.parts for challenge in docket.challenges.values())


def test_a_missing_part_is_no_answer() -> None:
    """Seven of eight parts, all of them right, show nothing; past the finish that is withholding."""
    stage = Stage(CutsFine)
    cast("CutsFine", stage.provider).kept_back = 1
    stage.serve(2)
    stage.commit()
    stage.provider.away = True
    stage.play(58)
    (convicted,) = stage.told(events.Convicted)
    assert convicted.outcome == Outcome.WITHHELD
    assert len(stage.told(events.AnswerPart)) == 21
    assert "7 parts of an answer" in stage.seat.noted("accused")[0].detail


def test_undone_parts_must_come_again() -> None:
    """A reorganisation takes the last part away: nothing is answered until it is mined again."""
    stage = Stage(CutsFine)
    stage.serve(1)
    stage.commit()
    stage.provider.away = True
    while not stage.told(events.ChallengeAnswered):
        stage.play(1)
    (docket,) = stage.seat.machine.open_dockets()
    (index, challenge), *_ = [it for it in docket.challenges.items() if it[1].answered]
    stage.reorganise(challenge.answered_block - 1)
    assert not challenge.answered
    assert not challenge.parts
    stage.provider.challenged(challenge.by, docket.commitment.epoch, index)
    stage.play(30)
    assert stage.cleared == 1
    assert not stage.told(events.Voted)


def test_a_provider_that_never_heard_of_the_validator_answers_in_the_open() -> None:
    """With every gateway away no seal key came through; the stake is kept at the price of one open transcript."""
    stage = Stage()
    stage.gateways[0].away = True
    stage.serve(1)
    stage.commit()
    stage.seat.step(Unlinked(stage.gateways[0].address))
    stage.play(58)
    assert not stage.provider.seals
    assert stage.told(events.ChallengeAnswered)
    assert stage.cleared == 1


class Liar(Gateway):
    """Leaves the last receipt out, and puts another's bytes in the boxes."""

    lies = 0

    def carry(self, opened: EpochOpened) -> EpochOpened:
        self.lies += 1
        match self.lies % 3:
            case 0:
                return replace(opened, receipts=opened.receipts[:-1])
            case 1:
                return replace(opened, sealed=((0, b"x" * 99), (1, b"")))
            case _:
                return replace(opened, signatures=tuple(bytes(65) for _ in opened.signatures))


@pytest.mark.parametrize("honest_too", [True, False])
def test_a_lying_relay_convicts_nobody(honest_too: bool) -> None:
    """What a gateway spoils counts as not opened: another gateway, or at last the chain, tells the truth."""
    liar = Liar("gateway 0")
    stage = Stage(gateways=(liar, Gateway("gateway 1")) if honest_too else (liar,))
    stage.serve(2)
    stage.commit()
    stage.play(58)
    assert liar.lies
    assert stage.seat.noted("unproven")
    assert not stage.told(events.Voted)
    assert stage.cleared == 1
    assert bool(stage.told(events.Challenged)) is not honest_too


def test_a_gateway_that_is_away_is_passed_over() -> None:
    """The next gateway is asked after a retry."""
    away = Gateway("gateway 0")
    away.away = True
    stage = Stage(gateways=(away, Gateway("gateway 1")))
    stage.serve(2)
    stage.commit()
    stage.play(40)
    assert stage.cleared == 1
    assert not stage.told(events.Challenged)


def test_the_chain_away_for_a_while_harms_nobody() -> None:
    """While no block comes, checks go on and nothing is demanded; after it, all is cleared in time."""
    stage = Stage()
    stage.serve(2)
    stage.commit()
    beacons = len(stage.told(events.BeaconRecorded))
    stage.play(2)
    while len(stage.told(events.BeaconRecorded)) < beacons + 2:
        stage.play(1)
    stage.provider.away = True
    stage.play(3)
    stage.chain_away = True
    stage.provider.away = False
    stage.play(12)
    assert len(stage.seat.noted("checked")) == 2
    stage.chain_away = False
    stage.play(10)
    assert stage.cleared == 1
    assert not stage.told(events.Challenged)


def test_a_failing_engine_accuses_nobody() -> None:
    """A check that breaks is this validator's own fault: it is tried again, and the epoch is cleared after."""
    stage = Stage()
    stage.serve(1)
    stage.commit()
    stage.seat.engine_fails = True
    stage.play(25)
    assert stage.seat.noted("check_failed")
    stage.seat.engine_fails = False
    stage.play(20)
    assert stage.cleared == 1


def test_an_engine_that_never_answers_leaves_the_epoch_open() -> None:
    """Without findings there is neither accusation nor clearance; at the window's end all is forgotten."""
    stage = Stage()
    stage.serve(1)
    stage.commit()
    stage.seat.engine_slow = True
    stage.play(75)
    assert not stage.told(events.Voted)
    assert stage.cleared == 0
    assert stage.seat.forgotten
    assert not stage.seat.machine.open_dockets()


def test_the_draw_follows_a_reorganised_beacon() -> None:
    """A beacon that is undone before it is deep enough draws nothing; the new one does."""
    stage = Stage(rate_ppm=300_000, confirmations=4)
    stage.serve(12)
    stage.commit()
    beacons = len(stage.told(events.BeaconRecorded))
    stage.play(2)
    while len(stage.told(events.BeaconRecorded)) < beacons + 2:
        stage.play(1)
    first = stage.told(events.BeaconRecorded)[-1]
    (docket,) = stage.seat.machine.open_dockets()
    assert docket.beacon == first.beacon
    stage.reorganise(stage.height - 2)
    assert docket.beacon is None
    stage.play(36)
    assert docket.beacon in {it.beacon for it in stage.told(events.BeaconRecorded)} - {first.beacon}
    assert stage.cleared == 1
    assert all(note.detail.split(": ")[1] != "NotDrawn" for note in stage.seat.noted("refused_by_chain"))


def test_a_reorganisation_after_the_verdict_makes_no_second_one() -> None:
    """What was voted and cleared in undone blocks is said again in the same words, never in others."""
    stage = Stage()
    stage.serve(2)
    stage.commit()
    while not stage.cleared:
        stage.play(1)
    docket = stage.seat.machine.docket(stage.provider.owner.address, max(stage.provider.epochs))
    assert docket is not None
    stage.reorganise(docket.closed_block - 1)
    assert not docket.closed
    stage.play(10)
    assert stage.cleared == 1
    said = {it.call.clearance for it in stage.seat.submitted if isinstance(it.call, calls.Clear)}
    assert len(said) == 1


def governed(stage: Stage, rate_ppm: int, answer_s: int = RULES.answer_s, bond_wei: int = TOKEN) -> None:
    """The governor sets parameters in the next block."""
    stage.submit(key("deployer"), calls.SetParameters(calls.Parameters(rate_ppm, 5_000, answer_s, bond_wei)))


def test_a_new_rate_is_followed_from_the_next_commitment_on() -> None:
    """What was committed before is drawn by its own rate, what comes after by the new one, also after a restart."""
    stage = Stage()
    stage.serve(12)
    stage.commit()
    stage.play(2)
    governed(stage, 600_000)
    stage.play(38)
    stage.serve(6, first=20)
    stage.commit()
    stage.seat.restart()
    stage.play(40)
    assert [it.rate_ppm for it in stage.told(events.EpochCommitted)] == [1_000_000, 600_000]
    first, second = (it.audited for it in stage.told(events.EpochCleared))
    assert first == 12
    assert 0 < second < 6
    assert not stage.told(events.Challenged)
    assert not stage.seat.noted("refused_by_chain")


def test_challenges_follow_the_parameters_too() -> None:
    """A longer time to answer makes them come earlier, and a bond that was none is paid and comes back."""
    rules = replace(RULES, answer_s=5, challenge_bond_wei=0)
    stage = Stage(rules=rules)
    governed(stage, 1_000_000, answer_s=10, bond_wei=2 * TOKEN)
    stage.play(2)
    stage.serve(1)
    stage.commit()
    stage.provider.away = stage.provider.away_from_chain = True
    stage.play(58)
    assert stage.convicted
    assert not stage.seat.noted("refused_by_chain")
    assert any(isinstance(it.call, calls.RecoverBond) for it in stage.seat.submitted)
    assert stage.chain.token.balance(stage.seat.hot.address) == 1_000 * TOKEN


def test_undone_parameters_are_forgotten() -> None:
    """A reorganisation that takes a change away leaves what was before."""
    stage = Stage()
    stage.play(2)
    height = stage.height
    governed(stage, 1)
    stage.play(2)
    stage.reorganise(height - 1)
    stage.serve(2)
    stage.commit()
    stage.play(40)
    assert [it.audited for it in stage.told(events.EpochCleared)] == [2]


def test_old_history_moves_nobody() -> None:
    """A validator that starts late reads commitments whose window is over, and asks for none of them."""
    stage = Stage()
    stage.serve(2)
    stage.commit()
    stage.play(90)
    seat = stage.seat
    asked_before = len(seat.submitted)
    seat.journal.clear()
    seat.restart()
    stage.play(4)
    assert len(seat.submitted) == asked_before
    assert not stage.outbox


@pytest.mark.parametrize("crash_at", range(0, 40, 1))
def test_a_crash_between_any_two_effects_changes_no_outcome(crash_at: int) -> None:
    """Killed before any of its effects and restored, the validator still clears the honest epoch, once."""
    stage = Stage()
    stage.seat.crash_at = crash_at
    stage.serve(3)
    stage.commit()
    stage.play(50)
    assert stage.cleared == 1
    assert not stage.told(events.Voted)


def test_a_snapshot_restores_to_the_same_state() -> None:
    """Compacted or not, the journal gives the same memory."""
    stage = Stage()
    stage.serve(3)
    stage.commit()
    stage.play(30)
    seat = stage.seat
    state = seat.machine.standing_milli(stage.provider.owner.address, MODEL)
    seat.compact()
    seat.restart()
    assert state == seat.machine.standing_milli(stage.provider.owner.address, MODEL) < 0
    stage.play(20)
    assert stage.cleared == 1


@pytest.mark.parametrize("seed", range(8))
def test_honest_providers_stay_honest_over_many_seeds(seed: int) -> None:
    """Twelve answers a seed, on an engine that differs in the last bits: never an accusation."""
    stage = Stage(Provider)
    stage.seat.engine_altered = 1e-4
    stage.serve(12, first=1_000 * seed)
    stage.commit()
    stage.play(50)
    assert not stage.told(events.Voted)
    assert stage.cleared == 1
