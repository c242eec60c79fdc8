"""Named villains before one honest validator: each is caught by what it did, and by nothing else."""

import pytest
from msgspec.structs import replace

from clusterai.audit.core import sequential
from clusterai.ledger.core import calls, events
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.messages import Answer, Transcript
from clusterai.protocol.statements import EPOCH_LIST, Outcome, Verdict, signing_digest
from clusterai.validator.core.memory import MOST_HEARD
from clusterai.validator.core.words import Overheard
from clusterai.work.inference import Generation
from clusterai.work.inference.core import tiny
from tests.rooms.validator.theatre import (
    COURT,
    MODEL,
    NETWORK,
    TOKEN,
    Provider,
    Stage,
    key,
)


class SwapsWeights(Provider):
    """Serves a cheaper model under the name of the ordered one."""

    altered = 0.5


class EditsTokens(Provider):
    """Replaces one token in eight by another plausible one."""

    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        tokens, reason = super().answer(generation)
        edited = [256 + (token + 7) % 512 if at % 8 == 3 else token for at, token in enumerate(tokens)]
        return tuple(edited), reason


class SkipsPrompt(Provider):
    """Reads only the end of the prompt, and charges for all of it."""

    def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
        return super().answer(replace(generation, prompt=generation.prompt[-8:]))


class ReplaysReceipt(Provider):
    """Counts a receipt of this epoch a second time."""

    def commit(self, total: int | None = None) -> None:
        self.open.append(self.open[0])
        super().commit(total)


class ReplaysEarlier(Provider):
    """Counts an order of an earlier epoch once more, under this epoch's number."""

    def commit(self, total: int | None = None) -> None:
        for kept in list(self.epochs.values())[-1:]:
            receipt = replace(kept[0][0], epoch=self.open[0][0].epoch)
            signature = self.hot.sign(signing_digest(receipt, NETWORK))
            self.open.append((receipt, signature, kept[0][2]))
        super().commit(total)


class OverclaimsUsage(Provider):
    """Counts a tenth more tokens than it read."""

    def finish(self, transcript: Transcript, prompt: int, **claims: int) -> None:
        super().finish(transcript, prompt, input_units=prompt + prompt // 10)


class OverclaimsTotal(Provider):
    """Commits to more than its receipts sum to, so that it could claim more."""

    def commit(self, total: int | None = None) -> None:
        super().commit(sum(receipt.amount_wei for receipt, _, _ in self.open) * 2)


class AsksOverCap(Provider):
    """Asks for more than the order allows."""

    def serve(self, seed: int, max_tokens: int = 48, cap_wei: int = 10_000) -> None:
        super().serve(seed, max_tokens, cap_wei=40)


class Overcharges(Provider):
    """Asks a little more than was agreed, well below the order's cap."""

    def finish(self, transcript: Transcript, prompt: int, **claims: int) -> None:
        super().finish(transcript, prompt)
        receipt = replace(self.open[-1][0], amount_wei=self.open[-1][0].amount_wei + 7)
        self.open[-1] = (receipt, self.hot.sign(signing_digest(receipt, NETWORK)), transcript)


class ForgesOrders(Provider):
    """Invents customers: the order is signed by nobody who is registered."""

    def finish(self, transcript: Transcript, prompt: int, **claims: int) -> None:
        forged = key("nobody").sign(signing_digest(transcript.order, NETWORK))
        super().finish(replace(transcript, order_signature=forged), prompt)


class HidesTranscript(Provider):
    """Opens all receipts but the one transcript that would convict it."""

    def serve(self, seed: int, max_tokens: int = 48, cap_wei: int = 10_000) -> None:
        self.altered = 0.5 if len(self.open) == 1 else 0.0
        super().serve(seed, max_tokens, cap_wei)

    def shows(self, index: int) -> bool:
        return index != 1

    def challenged(self, by: Address, epoch: int, index: int) -> None:
        assert index == 1, "only what wasn't opened is demanded"


class AnswersGarbage(HidesTranscript):
    """Answers the challenge in time, with noise."""

    def challenged(self, by: Address, epoch: int, index: int) -> None:
        self.give(epoch, index, (b"\x00 nothing to see here",))


class AnswersMostly(HidesTranscript):
    """Answers the challenge in two parts, and the second is noise."""

    def give(self, epoch: int, index: int, packed: tuple[bytes, ...]) -> None:
        super().give(epoch, index, (packed[0], b"\x00 and so on"))

    def challenged(self, by: Address, epoch: int, index: int) -> None:
        Provider.challenged(self, by, epoch, index)


class AnswersHalf(HidesTranscript):
    """Begins to answer in time, and never gets to the end."""

    def challenged(self, by: Address, epoch: int, index: int) -> None:
        call = calls.AnswerChallenge(self.owner.address, epoch, index, 0, 2, b"\x00 well, let me see")
        self.stage.submit(self.hot, call)


class AnswersAnother(HidesTranscript):
    """Answers the challenge with an honest transcript of another request."""

    def challenged(self, by: Address, epoch: int, index: int) -> None:
        kept = self.epochs[epoch]
        self.epochs[epoch] = [(it[0], it[1], kept[0][2]) for it in kept]
        Provider.challenged(self, by, epoch, index)
        self.epochs[epoch] = kept


class ChangesTokensLater(Provider):
    """Served altered tokens, and opens an honest answer that the receipt doesn't name."""

    altered = 0.5

    def finish(self, transcript: Transcript, prompt: int, **claims: int) -> None:
        super().finish(transcript, prompt)
        generation = canonical.decode(transcript.request, Generation)
        honest = Answer(*tiny.answer(tiny.TinyModel(MODEL), generation))
        receipt, signature, _ = self.open[-1]
        self.open[-1] = (receipt, signature, replace(transcript, answer=honest))

    def challenged(self, by: Address, epoch: int, index: int) -> None:
        pass


class Mislabels(Provider):
    """Calls its work another kind than it is, so that no validator would know how to check it."""

    altered = 0.5

    def finish(self, transcript: Transcript, prompt: int, **claims: int) -> None:
        super().finish(replace(transcript, kind="weaving"), prompt)


FRAUDS = (
    SwapsWeights,
    EditsTokens,
    SkipsPrompt,
    ReplaysReceipt,
    OverclaimsUsage,
    OverclaimsTotal,
    AsksOverCap,
    Overcharges,
    AnswersGarbage,
    AnswersMostly,
    AnswersAnother,
    ForgesOrders,
    Mislabels,
)
WITHHOLDERS = (HidesTranscript, AnswersHalf, ChangesTokensLater)


@pytest.mark.parametrize("villain", FRAUDS)
def test_fraud_is_convicted(villain: type[Provider]) -> None:
    """Within the audit window the villain is convicted, slashed and barred, by a vote with evidence."""
    stage = Stage(villain)
    stage.serve(4)
    stage.commit()
    stage.play(58)
    (convicted,) = stage.told(events.Convicted)
    assert convicted.outcome == Outcome.FRAUD
    assert convicted.slashed == 500 * 10**9
    assert stage.cleared == 0
    vote = next(v for v in stage.seat.votes() if v.verdict.index == convicted.index)
    assert convicted.index == EPOCH_LIST or vote.verdict.evidence in stage.seat.kept


@pytest.mark.parametrize("villain", WITHHOLDERS)
def test_withholding_is_convicted(villain: type[Provider]) -> None:
    """What is not opened, neither over a gateway nor on chain by the deadline, costs as much as fraud."""
    stage = Stage(villain)
    stage.serve(4)
    stage.commit()
    stage.play(58)
    (convicted,) = stage.told(events.Convicted)
    assert convicted.outcome == Outcome.WITHHELD
    assert stage.told(events.Challenged)
    hot = stage.seat.hot.address
    assert stage.chain.token.balance(hot) == 1_000 * TOKEN, "the challenge's bond comes back"


@pytest.mark.parametrize("seed", range(6))
def test_swapped_weights_are_caught_on_every_seed(seed: int) -> None:
    """Four receipts of altered weights suffice, whatever the customers' seeds."""
    stage = Stage(SwapsWeights)
    stage.serve(4, first=100 * seed)
    stage.commit()
    stage.play(45)
    assert stage.convicted


def test_an_order_counted_in_an_earlier_epoch_is_found() -> None:
    """The list of an epoch is held against the lists before it, also after the validator was killed."""
    stage = Stage(ReplaysEarlier)
    stage.serve(3)
    stage.commit()
    stage.play(45)
    assert stage.cleared == 1
    stage.seat.restart()
    stage.serve(3, first=50)
    stage.commit()
    stage.play(45)
    (convicted,) = stage.told(events.Convicted)
    assert convicted.index == EPOCH_LIST


@pytest.mark.parametrize("crash_at", range(0, 60, 2))
def test_a_cheat_is_convicted_whenever_the_validator_dies(crash_at: int) -> None:
    """Killed before any of its effects, the restored validator signs the same verdicts and no other."""
    stage = Stage(SwapsWeights)
    stage.seat.crash_at = crash_at
    stage.serve(4)
    stage.commit()
    stage.play(58)
    assert stage.convicted
    said: dict[int, set[bytes]] = {}
    for vote in stage.seat.votes():
        said.setdefault(vote.verdict.index, set()).add(canonical.encode(vote.verdict))
    assert all(len(verdicts) == 1 for verdicts in said.values())


def test_small_cheating_adds_up_over_epochs() -> None:
    """Four edited tokens in a receipt convict nobody at once; epoch by epoch the weights add up."""

    class EditsSometimes(Provider):
        def answer(self, generation: Generation) -> tuple[tuple[int, ...], str]:
            tokens, reason = super().answer(generation)
            edited = tuple(256 + (token + 7) % 512 for token in tokens[-4:])
            return tokens[:-4] + edited, reason

    stage = Stage(EditsSometimes)
    states: list[int] = []
    for number in range(6):
        if stage.convicted:
            break
        stage.serve(1, first=7 * number)
        stage.commit()
        stage.play(40)
        states.append(stage.seat.machine.standing_milli(stage.provider.owner.address, MODEL))
    assert stage.convicted
    assert len(states) > 1
    assert states == sorted(states)
    assert states[0] < sequential.BOUND_MILLI <= states[-1]


def test_a_false_accuser_alone_convicts_nobody() -> None:
    """One of three validators votes fraud on honest work: two thirds of the stake don't follow, and it is reported."""
    stage = Stage(validators=3)
    stage.serve(2)
    stage.commit()
    while not stage.seat.noted("checked"):
        stage.play(1)
    accuser = stage.seats[2]
    docket = stage.seat.machine.open_dockets()[0]
    leaf, path = docket.leaf(0), docket.path(0)
    assert leaf is not None
    assert path is not None
    verdict = Verdict(
        stage.provider.owner.address,
        docket.commitment.epoch,
        0,
        leaf,
        Outcome.FRAUD,
        stage.seat.noted("checked")[0].evidence or ZERO_DIGEST,
    )
    signature = accuser.hot.sign(signing_digest(verdict, COURT))
    stage.submit(accuser.hot, calls.Vote(verdict, path, signature), accuser, "lie")
    stage.play(50)
    assert stage.told(events.Voted)
    assert not stage.convicted
    assert stage.seat.noted("disputed_vote")
    assert stage.seats[1].noted("disputed_vote")


def test_contradicting_verdicts_cost_the_stake() -> None:
    """Who signs fraud and withheld on one receipt is slashed by whoever shows both."""
    stage = Stage(validators=2)
    liar = stage.seats[1]
    provider = stage.provider.owner.address
    first = Verdict(provider, 3, 0, Digest(b"\1" * 32), Outcome.FRAUD, ZERO_DIGEST)
    second = replace(first, outcome=int(Outcome.WITHHELD))
    for verdict in (first, first, second):
        stage.seat.step(Overheard(verdict, liar.hot.sign(signing_digest(verdict, COURT))))
    stage.seat.step(Overheard(first, bytes(65)))
    stage.play(4)
    (found,) = stage.told(events.Equivocated)
    assert found.validator == liar.owner.address
    assert stage.seat.machine.directory.barred(liar.owner.address)


def two_faces(stage: Stage, index: int = 0) -> tuple[Overheard, Overheard]:
    """Fraud and withheld about one receipt, by validator 1."""
    first = Verdict(stage.provider.owner.address, 3, index, Digest(b"\1" * 32), Outcome.FRAUD, ZERO_DIGEST)
    second = replace(first, outcome=int(Outcome.WITHHELD))
    sign = stage.seats[1].hot.sign
    one, other = (Overheard(it, sign(signing_digest(it, COURT))) for it in (first, second))
    return one, other


@pytest.mark.parametrize("compacted", [False, True])
def test_what_was_heard_is_remembered_over_a_restart(compacted: bool) -> None:
    """The second face shows itself a life later; the block with the first may be gone by then."""
    stage = Stage(validators=2)
    first, second = two_faces(stage)
    stage.seat.step(first)
    if compacted:
        stage.seat.compact()
    stage.seat.restart()
    assert not stage.seat.submitted
    stage.seat.step(second)
    stage.play(4)
    assert stage.told(events.Equivocated)


@pytest.mark.parametrize("crash_at", [0, 1, 2])
def test_a_crash_lets_no_two_faced_validator_go(crash_at: int) -> None:
    """Killed before it wrote the second statement down it must hear it again; after that it submits by itself."""
    stage = Stage(validators=2)
    first, second = two_faces(stage)
    stage.seat.step(first)
    stage.seat.effects = 0
    stage.seat.crash_at = crash_at
    stage.seat.step(second)
    if crash_at == 0:
        stage.seat.step(second)
    stage.play(6)
    assert len(stage.told(events.Equivocated)) == 1


def test_a_flood_of_statements_makes_others_unforgotten() -> None:
    """A validator that signs about thousands of receipts pushes out its own words, not another's."""
    stage = Stage(validators=3)
    first, second = two_faces(stage)
    stage.seat.step(first)
    flood = stage.seats[2].hot
    for index in range(MOST_HEARD + 10):
        verdict = replace(first.verdict, index=index)
        stage.seat.step(Overheard(verdict, flood.sign(signing_digest(verdict, COURT))))
    assert len(stage.seat.machine.snapshot()) == MOST_HEARD + 1
    stage.seat.step(second)
    stage.play(4)
    (found,) = stage.told(events.Equivocated)
    assert found.validator == stage.seats[1].owner.address


def test_a_lazy_validator_cannot_follow() -> None:
    """Rubber-stamping another's accusation needs the case's digest, and so the transcript itself."""
    stage = Stage(SwapsWeights, validators=3)

    lazy = stage.seats[2]
    lazy.stopped = True
    stage.serve(4)
    stage.commit()
    stage.play(58)
    assert stage.convicted
    assert not lazy.votes()
    evidence = {it.evidence for it in stage.told(events.Voted)}
    assert evidence <= set(stage.seat.kept)
    guesses = [canonical.digest(receipt) for kept in stage.provider.epochs.values() for receipt, _, _ in kept]
    assert not evidence & set(guesses)


def test_few_transcripts_are_shown_for_much_fraud() -> None:
    """Twelve wrong receipts are worth one conviction: no more than four cases are voted on, and so published."""
    stage = Stage(SwapsWeights)
    stage.serve(12)
    stage.commit()
    stage.play(45)
    assert stage.convicted
    assert 0 < len(stage.seat.votes()) <= 4
