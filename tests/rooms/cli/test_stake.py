"""What a person is told before stake moves: the plan in sentences, or why not, with the cure."""

from pathlib import Path

import pytest

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.main import run
from clusterai.cli.stakeplans import announcing, claiming, delegating, undelegating, withdrawing
from clusterai.cli.staking import Delegation, Leaving, Stakes, Validator
from clusterai.ledger import artifacts
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import LOCAL
from clusterai.protocol.ids import ZERO_DIGEST, Address, address, checksummed
from clusterai.protocol.money import WEI_PER_TOKEN as TOKEN

VAL, VIC, ME = (checksummed(Address(bytes([n]) * 20)) for n in (0xA1, 0xA2, 0x03))
NETWORK = Network(
    chain_id=31415,
    rpc_urls=("http://127.0.0.1:1",),
    contracts=local_plan(artifacts.load, address(ME)).addresses,
    genesis=ZERO_DIGEST,
    rules=LOCAL,
)


def validator(name: str = VAL, delegated: int = 0, barred: bool = False, provides: bool = False) -> Validator:
    own = 0 if barred else 100 * TOKEN
    room = 0 if barred or provides else 3 * own - delegated
    return Validator(name, own, delegated, own + delegated, room, 0, 500, 500, 0, barred, provides)


def stakes(
    *mine: Delegation, balance: int = 1_000 * TOKEN, allowance: int = 0, barred: bool = False
) -> Stakes:
    return Stakes(ME, balance, allowance, 1_000, 120, [validator(barred=barred), validator(VIC)], [*mine])


def behind(stake: int = 0, earned: int = 0, leaving: tuple[int, ...] = (), lost: bool = False) -> Delegation:
    return Delegation(VAL, stake, 0, 0, earned, [Leaving(TOKEN, ready_s) for ready_s in leaving], lost)


def test_delegating_approves_first_and_says_what_is_at_risk() -> None:
    """Two transactions, or one where the allowance is there; the plan says when it earns and what can be lost."""
    plan = delegating(stakes(), NETWORK, validator(), 5 * TOKEN)
    assert plan.calls == (
        calls.Approve(NETWORK.contracts.delegations, 5 * TOKEN),
        calls.DelegateStake(address(VAL), 5 * TOKEN),
    )
    text = " ".join(plan.says)
    assert "earn in 200 s" in text
    assert "all of it is lost" in text
    assert "5 %" in text
    assert len(delegating(stakes(allowance=5 * TOKEN), NETWORK, validator(), 5 * TOKEN).calls) == 1


@pytest.mark.parametrize(
    ("one", "balance", "says"),
    [
        (validator(delegated=299 * TOKEN), 1_000, "has room for 1 CLAI"),
        (validator(barred=True), 1_000, "was slashed"),
        (validator(provides=True), 1_000, "provides, too"),
        (validator(), 1, "has 1 CLAI"),
    ],
)
def test_what_the_contract_would_refuse_is_refused_before(one: Validator, balance: int, says: str) -> None:
    """No room, slashed, a provider as well, too little money: each with its cure."""
    with pytest.raises(Failure) as refused:
        delegating(stakes(balance=balance * TOKEN), NETWORK, one, 2 * TOKEN)
    assert says in refused.value.what
    assert refused.value.next


def test_all_is_undelegated_where_no_amount_is_named() -> None:
    """The plan takes what is there, and never more."""
    there = stakes(behind(7 * TOKEN))
    assert undelegating(there, validator(), None).calls == (calls.UndelegateStake(address(VAL), 7 * TOKEN),)
    for amount in (0, 8 * TOKEN):
        with pytest.raises(Failure):
            undelegating(there, validator(), amount)


def test_the_ninth_undelegation_waits_for_the_first() -> None:
    """The message says how long."""
    with pytest.raises(Failure) as refused:
        undelegating(stakes(behind(TOKEN, leaving=(1_030,) * 8)), validator(), TOKEN)
    assert "30 s" in refused.value.why


def test_what_is_ready_is_withdrawn() -> None:
    """Undelegations whose delay is over, from every validator; if there are none, when the next is."""
    plan = withdrawing(stakes(behind(leaving=(900, 1_000, 1_001))), None)
    assert plan.calls == (calls.WithdrawStake(address(VAL)),)
    assert plan.amount_wei == 2 * TOKEN
    with pytest.raises(Failure) as early:
        withdrawing(stakes(behind(leaving=(1_001,))), None)
    assert "in 1 s" in early.value.why
    with pytest.raises(Failure) as nothing:
        withdrawing(stakes(), None)
    assert "undelegate" in nothing.value.next


def test_what_was_slashed_is_told_to_be_lost_and_earnings_can_be_claimed() -> None:
    """Stake is gone, what it had earned isn't."""
    lost = stakes(behind(earned=3, leaving=(1,), lost=True), barred=True)
    for plan in (
        lambda: withdrawing(lost, lost.validators[0]),
        lambda: undelegating(lost, lost.validators[0], 1),
    ):
        with pytest.raises(Failure) as refused:
            plan()
        assert "claim" in refused.value.next
    assert claiming(lost, None).calls == (calls.ClaimReward(address(VAL)),)
    with pytest.raises(Failure):
        claiming(stakes(behind(TOKEN)), None)


def test_a_commission_is_a_validators_to_announce_within_bounds() -> None:
    """With another key than a validator's, or above the bound, it is refused."""
    with pytest.raises(Failure) as stranger:
        announcing(stakes(), 500)
    assert "--key" in stranger.value.next
    own = Stakes(VAL, 0, 0, 1_000, 120, [validator()], [])
    assert announcing(own, 500).calls == (calls.AnnounceCommission(500),)
    with pytest.raises(Failure):
        announcing(own, 5_001)


def test_validators_are_named_by_how_their_address_begins() -> None:
    """One that is meant is found; none and several are told apart."""
    assert stakes().validator(VAL[:6].upper().replace("0X", "0x")).validator == VAL
    for name, why in (("0xff", "no owner"), ("0xa", "several")):
        with pytest.raises(Failure) as refused:
            stakes().validator(name)
        assert why in refused.value.why
        assert refused.value.code == Exit.NOT_FOUND


@pytest.mark.parametrize(
    "command", [["delegate", "0xa1", "much"], ["undelegate", "0xa1", "-1x"], ["commission", "7.555"]]
)
def test_numbers_that_are_none_are_usage_errors(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any network is looked for."""
    assert run(["stake", *command, "--data", str(tmp_path)]) == Exit.USAGE
    assert capsys.readouterr().out == ""
