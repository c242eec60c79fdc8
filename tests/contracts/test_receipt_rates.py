"""At what rate a provider's receipts are drawn, and whether that deters: newcomers, sleepers, and who packs an epoch."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.audit.core.draw import MILLION, epoch_rate_ppm
from clusterai.audit.core.segments import RateRules
from clusterai.ledger.core import calls
from clusterai.ledger.core.twin import BlockContext, Refused
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.keccak import keccak
from tests.contracts.cast import DEPLOYER, HOTS, OWNERS, RULES, Pair

ANN = OWNERS["ann"].address
SHARES = RateRules(
    RULES.audits.saving_ppm, RULES.audits.sensitivity_ppm, RULES.audits.corrupt_ppm, RULES.audits.margin_ppm
)
STAKE = 10_000
TRIALS = 3_000


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.populate()
    pair.expect(calls.SetParameters(calls.Parameters(1, RULES.bounty_bps, RULES.answer_s, 0)), DEPLOYER)
    return pair


def with_history(pair: Pair, valid: int) -> None:
    """Ann had so many receipts that were drawn and found valid."""
    pair.advance(RULES.epoch_s)
    epoch = pair.now_s // RULES.epoch_s - 1
    pair.expect(calls.CommitEpoch(epoch, ZERO_DIGEST, 1, 0), HOTS["ann"])
    pair.advance(RULES.epoch_s)
    pair.expect(calls.Tick(), DEPLOYER)
    pair.found_valid("ann", epoch, valid)


def drawn(pair: Pair, trial: int, count: int, total: int) -> list[int]:
    """What one beacon draws of one commitment; the chain is as before afterwards."""
    twin, mark = pair.twin, pair.twin.mark()
    epoch = pair.now_s // RULES.epoch_s
    root = Digest(keccak(b"root %d" % trial))
    later = [BlockContext(n, (epoch + n) * RULES.epoch_s, keccak(b"%d %d" % (trial, n))) for n in (1, 2)]
    done = twin.execute(calls.CommitEpoch(epoch, root, count, total), HOTS["ann"].address, later[0])
    assert not isinstance(done, Refused)
    twin.execute(calls.Tick(), DEPLOYER.address, later[1])
    found = [index for index in range(count) if twin.court.drawn(ANN, epoch, index)]
    twin.rollback(mark)
    return found


def caught(pair: Pair, count: int, total: int, wrong: range) -> float:
    """The share of trials in which one at least of the wrong receipts was drawn."""
    return sum(any(i in wrong for i in drawn(pair, t, count, total)) for t in range(TRIALS)) / TRIALS


def four_errors(expected: float) -> float:
    return 4 * math.sqrt(expected * (1 - expected) / TRIALS)


@settings(max_examples=60)
@given(
    least=st.integers(1, MILLION),
    stake=st.integers(0, 10**15) | st.integers(0, 10**6),
    total=st.integers(0, 10**15) | st.integers(0, 10**6),
    count=st.integers(1, 8_192),
    valid=st.integers(0, 10**7) | st.integers(0, 40),
)
def test_a_rate_falls_to_what_deters_and_no_lower(
    least: int, stake: int, total: int, count: int, valid: int
) -> None:
    """More stake, less pay or a longer history never raise it; neither governor nor history take it below p* of the total."""
    rate = epoch_rate_ppm(SHARES, least, stake, total, count, valid)
    assert least <= rate <= MILLION
    assert epoch_rate_ppm(SHARES, least, stake + 1, total, count, valid) <= rate
    assert epoch_rate_ppm(SHARES, least, stake, total // 2, count, valid) <= rate
    assert epoch_rate_ppm(SHARES, least, stake, total, count, valid + 1) <= rate
    forfeited = rate / MILLION * 0.99 * 0.8 * (total + stake // 2)
    assert rate == MILLION or forfeited >= 1.2 * 0.7 * total * (1 - 1e-9)


@pytest.mark.parametrize(
    ("valid", "count", "total", "rate"),
    [
        (0, 1, 0, 1_000_000),
        (0, 10, 1_000, 1_000_000),
        (0, 40, 0, 250_000),
        (0, 40, 1_000, 250_000),
        (0, 400, 1_000, 176_768),
        (60, 40, 1_000, 176_768),
        (10**9, 40, 1_000, 176_768),
        (10**9, 1, 100, 20_797),
        (10**9, 40, 10_000, 707_071),
        (10**9, 40, 10**9, 1_000_000),
        (10**9, 40, 0, 1),
    ],
)
def test_contract_twin_and_formula_say_one_rate(
    pair: Pair, valid: int, count: int, total: int, rate: int
) -> None:
    """By stake (here 10,000), total, number of receipts and history; a governor who asks for one millionth changes none."""
    if valid:
        with_history(pair, valid)
    assert pair.bytecode.read("Court", "rateOf", ANN, count, total) == rate
    assert pair.twin.court.rate_of(ANN, count, total) == rate
    assert epoch_rate_ppm(SHARES, 1, STAKE, total, count, valid) == rate


def test_stake_on_its_way_out_lowers_no_rate(pair: Pair) -> None:
    """What is being taken out may be gone by the verdict, so receipts are drawn as if it were; what is left counts half."""
    with_history(pair, 10**9)
    before = pair.twin.court.rate_of(ANN, 40, 1_000)
    pair.expect(calls.Unbond(5_000), OWNERS["ann"])
    assert pair.twin.court.rate_of(ANN, 40, 1_000) == epoch_rate_ppm(SHARES, 1, 5_000, 1_000, 40, 10**9)
    assert pair.twin.court.rate_of(ANN, 40, 1_000) > before
    pair.compare()


def test_an_identity_without_stake_is_audited_wholly(pair: Pair) -> None:
    """Sybil: a fresh identity has nothing to lose but its pay, so every receipt that asks for pay is drawn, for ever."""
    pair.expect(calls.Unbond(STAKE), OWNERS["ann"])
    for valid in (0, 10**9):
        if valid:
            with_history(pair, valid)
        assert pair.twin.court.rate_of(ANN, 8_192, 1) == MILLION
        assert caught(pair, 1, 1, range(1)) == 1


@pytest.mark.parametrize(("count", "wrong"), [(10, 1), (40, 40), (40, 4), (400, 40)])
def test_a_newcomer_that_cheats_at_once_is_drawn(pair: Pair, count: int, wrong: int) -> None:
    """Sybil with a stake: of its first epoch ten receipts are drawn on average, so that cheating throughout is seen."""
    share = max(10 / count, 0.176768)
    expected = 1 - (1 - share) ** wrong
    assert caught(pair, count, 1_000, range(wrong)) == pytest.approx(
        expected, abs=four_errors(expected) + 1e-9
    )


def test_a_sleeper_is_drawn_by_what_it_has_to_lose(pair: Pair) -> None:
    """After any number of valid receipts, one wrong among many is drawn with p* of its epoch's whole total."""
    with_history(pair, 10**9)
    assert caught(pair, 40, 1_000, range(1)) == pytest.approx(0.176768, abs=four_errors(0.176768))


@pytest.mark.parametrize("total", [100, 1_000, 10_000])
def test_packing_an_epoch_into_one_receipt_loses(pair: Pair, total: int) -> None:
    """Packer: the one wrong receipt asks for nearly all of the total, the others for nothing. It saves 0.7 of that, and
    loses total and half the stake (its own validator accuses first) where it is drawn: less than nothing on average."""
    with_history(pair, 10**9)
    rate = epoch_rate_ppm(SHARES, 1, STAKE, total, 40, 10**9) / MILLION
    share = caught(pair, 40, total, range(39, 40))
    assert share == pytest.approx(rate, abs=four_errors(rate))
    assert 0.7 * total - share * 0.99 * (total + STAKE / 2) < 0
