"""Random disputes on the bytecode and on the twins: equal outcomes and state, money conserved, and whoever ran the segment
rightly and moved in time wins, as long as two thirds of a committee ran it rightly too."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterai.ledger.core import calls
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.disputes import ASSERTING, ENDED, REVEALING, SEALING, SELECTING
from clusterai.ledger.core.twin.leases import CLOSED
from clusterai.protocol.ids import ZERO_DIGEST, Address
from clusterai.protocol.leases import sealed_result
from clusterai.protocol.signing import Key
from tests.contracts.cast import DEPLOYER, RULES
from tests.contracts.disputecast import PEOPLE, SIGNERS, DisputePair, traces, wrong_from
from tests.contracts.leasecast import SALT, WRONG, Job, digest, hot, job

people = st.sampled_from(sorted(PEOPLE))
results = st.sampled_from((ZERO_DIGEST, WRONG, digest("another")))
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large)
)


def interfere(pair: DisputePair, one: Job, data: st.DataObject) -> None:
    """Any call by anyone at any time; mostly refused, with the same name on both sides."""
    game = pair.dispute(one).game
    inner = game.asserted if data.draw(st.booleans()) else (WRONG,) * data.draw(st.integers(0, 16))
    result = data.draw(st.one_of(results, st.just(game.claimed)))
    sender = PEOPLE[data.draw(people)]
    owner = pair.twin.registry.owner_of(sender.address)
    any_of: tuple[calls.Call, ...] = (
        calls.StartDispute(one.lease),
        calls.AssertTrace(one.lease, inner),
        calls.SelectRange(one.lease, data.draw(st.integers(0, 255)), result, inner),
        calls.CommitReferee(one.lease, sealed_result(result, owner, one.lease, SALT)),
        calls.RevealReferee(one.lease, result, SALT),
        calls.ExpireDispute(one.lease),
        calls.ExpireAudit(one.lease),
        calls.CloseLease(one.lease),
    )
    kind = data.draw(st.integers(0, len(any_of) - 1))
    game_sender = data.draw(st.sampled_from((sender, hot(one.provider))))
    pair.do(any_of[kind], game_sender if kind < 3 else sender)


def referee(pair: DisputePair, one: Job, data: st.DataObject) -> None:
    """A referee's turn: what it says is drawn."""
    found = pair.dispute(one)
    who = data.draw(st.sampled_from(pair.committee(one) or sorted(SIGNERS)))
    said = data.draw(st.one_of(st.just(found.game.denied), st.just(found.game.claimed), results))
    if found.stage == SEALING:
        pair.do(calls.CommitReferee(one.lease, sealed_result(said, who, one.lease, SALT)), SIGNERS[who])
        return
    for result in (said, found.game.denied, found.game.claimed, ZERO_DIGEST, WRONG, digest("another")):
        if not isinstance(pair.do(calls.RevealReferee(one.lease, result, SALT), SIGNERS[who]), Refused):
            return


@FEW
@given(st.data())
def test_twins_and_bytecode_agree_over_random_disputes(data: st.DataObject) -> None:
    """Whatever anybody does in any order, outcomes, events, state and money are equal; every dispute ends by its clocks."""
    pair = DisputePair(data.draw(st.sampled_from((0, 2, 6))))
    pair.populate()
    steps = data.draw(st.sampled_from((1, 2, 16, 17, 300, 10**6, 2**40 + 1)))
    cheats = data.draw(st.booleans())
    one = job(pair, cheats=cheats, metered=steps, determinism=data.draw(st.sampled_from((1, 1, 2))))
    first, second = pair.contested(one, WRONG, data.draw(st.sampled_from((WRONG, digest("another")))))
    truth, claimed, steps = traces(pair, one)
    if data.draw(st.booleans()):
        pair.advance(RULES.audits.dispute_s // 2 + 1)
    accuser = data.draw(st.sampled_from((first, second)))
    pair.do(calls.StartDispute(one.lease), accuser)
    provider = wrong_from(truth, max(1, steps // 3), claimed, steps)
    challenger = wrong_from(truth, max(1, steps // 2), pair.dispute(one).game.denied, steps)
    for _ in range(data.draw(st.integers(0, 40))):
        stage, twist = pair.dispute(one).stage, data.draw(st.integers(0, 9))
        if twist == 9:
            pair.advance(data.draw(st.sampled_from((1, 5, 30, 60))))
        if twist in (7, 8):
            interfere(pair, one, data)
        elif twist == 6:
            pair.do(calls.ExpireDispute(one.lease), DEPLOYER)
        elif stage in (ASSERTING, SELECTING) and pair.now_s <= pair.dispute(one).by_s:
            pair.step(one, accuser, provider, challenger)
        elif stage in (SEALING, REVEALING):
            referee(pair, one, data)
    pair.check([one])
    for _ in range(8):
        if pair.dispute(one).stage in (ASSERTING, SELECTING, SEALING, REVEALING):
            pair.advance(1 + max(0, pair.dispute(one).by_s - pair.now_s))
            pair.expect(calls.ExpireDispute(one.lease), DEPLOYER)
    assert pair.dispute(one).stage in (0, ENDED)
    pair.advance(200)
    pair.do(calls.ExpireAudit(one.lease), DEPLOYER)
    pair.do(calls.CloseLease(one.lease), DEPLOYER)
    assert pair.twin.leases.lease(one.lease).state == CLOSED
    pair.check([one])
    pair.compare_leases((one.lease,))


@FEW
@given(st.data())
def test_whoever_ran_it_rightly_wins(data: st.DataObject) -> None:
    """Against any assertions, selections and stories of the other, where the first committee's referees are honest."""
    pair = DisputePair()
    pair.populate()
    steps = data.draw(st.integers(1, 10**9))
    cheats = data.draw(st.booleans())
    one = job(pair, cheats=cheats, metered=steps, segments=1)
    accuser, _ = pair.contested(one, one.honest.result(1) if cheats else WRONG)
    pair.expect(calls.StartDispute(one.lease), accuser)
    truth, _, _ = traces(pair, one)
    while pair.dispute(one).stage in (ASSERTING, SELECTING):
        if pair.dispute(one).stage == ASSERTING and cheats:
            points = pair.dispute(one).game.points[1:-1]
            inner = tuple(truth(it) if data.draw(st.booleans()) else WRONG for it in points)
            pair.expect(calls.AssertTrace(one.lease, inner), hot(one.provider))
        elif pair.dispute(one).stage == SELECTING and not cheats:
            lie(pair, one, accuser, data)
        else:
            pair.step(one, accuser, truth, truth)
    high = pair.dispute(one).game.high
    pair.judge(one, lambda _: truth(high))
    assert pair.twin.registry.participant(one_provider(one)).barred == cheats
    pair.check([one])


def lie(pair: DisputePair, one: Job, accuser: Key, data: st.DataObject) -> None:
    """Any part that the rules allow, whatever it says of its end."""
    game = pair.dispute(one).game
    part = data.draw(st.integers(0, len(game.points) - 2))
    denied = game.denied if part == len(game.points) - 2 else WRONG
    pair.expect(calls.SelectRange(one.lease, part, denied, game.asserted), accuser)


def one_provider(one: Job) -> Address:
    return Address(one.terms.provider)
