"""Every strategy loses to honesty under the default rules, at small scale, and wins where the rules are bent."""

import pytest

from clusterai.simulator import Report, Row, decode_scenario, simulate

MARKET = """
name = "small"
seeds = 3
[market]
leases = {leases}
work_s = {work_s}
history = {history}
used = {used}
uneven = {uneven}
slack = {slack}
stake = {stake}
validators = 20
[rules]
{rules}
[[groups]]
strategy = "{strategy}"
{group}
"""


def play(
    strategy: str,
    group: str = "",
    rules: str = "",
    history: int = 30,
    stake: float = 10.0,
    head: str = "",
    leases: int = 12,
    used: float = 1.0,
    work_s: int = 600,
    uneven: float = 1.0,
    slack: float = 1.0,
) -> Report:
    """A short history, so that a third is audited and few leases tell: at p* it takes the benchmark's numbers."""
    terms = {"strategy": strategy, "group": group, "rules": rules, "history": history}
    text = MARKET.format(
        stake=stake, leases=leases, used=used, work_s=work_s, uneven=uneven, slack=slack, **terms
    )
    return simulate(decode_scenario(head + text))


def row(report: Report) -> Row:
    (only,) = report.rows
    return only


@pytest.mark.parametrize(
    ("strategy", "group"),
    [
        ("full-skip", "operators = 8"),
        ("partial-skip", "operators = 12\nshare = 0.5"),
        ("sleeper", "operators = 8\nhonest_first = 4"),
        ("sybil-split", "operators = 6\nidentities = 4"),
        ("stubborn", "operators = 6"),
        ("bribe-beacon", "operators = 6\nbribed = 10"),
        ("withhold", "operators = 6"),
        ("hide", "operators = 6"),
        ("starve", "operators = 6"),
        ("self-deal", "operators = 8\nhonest_first = 4"),
        ("collude", "operators = 8\ncorrupt = 0.3"),
        ("serve-friends", "operators = 8\ncorrupt = 0.2"),
        ("griefer", "operators = 4\nafter = 0.9"),
        ("withhold-outputs", "operators = 2"),
        ("false-demand", "operators = 2"),
    ],
)
def test_a_cheat_earns_less_than_it_would_honestly(strategy: str, group: str) -> None:
    """Whoever doesn't do what it is paid for ends with less, and no honest one is slashed."""
    report = play(strategy, group)
    assert row(report).extra < 0
    assert row(report).deterred
    assert report.false_slashes == 0


@pytest.mark.parametrize(
    ("uneven", "slack", "deterred"), [(1, 1, True), (2, 1, True), (4, 1, True), (4, 4, False)]
)
def test_who_makes_up_the_heaviest_segments_saves_no_more_than_their_share(
    uneven: float, slack: float, deterred: bool
) -> None:
    """At p* a quarter of the segments is drawn with p / 4: that deters where they hold a quarter of what the price is for, not all of it."""
    played = row(play("heavy-quarter", "operators = 20", uneven=uneven, slack=slack, history=10**9))
    assert played.deterred == deterred


@pytest.mark.parametrize("strategy", ["lazy-auditor", "silent-auditor", "withheld-reveal", "false-accuser"])
def test_an_auditor_who_does_not_audit_earns_less(strategy: str) -> None:
    """Fee, bond and second auditor make auditing worth its cost, and protect the audited."""
    honest = '\n[[groups]]\nstrategy = "honest"\noperators = 10'
    report = play(strategy, "operators = 4" + honest, history=0, leases=6)
    assert report.rows[0].extra < 0
    assert report.false_slashes == 0


@pytest.mark.parametrize(("traps", "wins"), [(0.0, True), (0.5, False)])
def test_who_copies_results_wins_unless_traps_are_planted(traps: float, wins: bool) -> None:
    """Where providers leak what they claim, only bait tells a copy from work: above K / (A + V + the auditor's stake) of all audits."""
    honest = '\n[[groups]]\nstrategy = "honest"\noperators = 10'
    report = play("copying-auditor", "operators = 4" + honest, head=f"traps = {traps}\n", history=0, leases=6)
    assert (report.rows[0].extra > 0) == wins
    assert report.false_slashes == 0


def test_honest_auditors_and_providers_live_among_bait() -> None:
    """Half of all leases are bait: all of it is closed, and nobody is slashed or disputed."""
    report = play("honest", "operators = 6", head="traps = 0.5\n", history=0, leases=10)
    assert (report.false_slashes, report.accusations) == (0, 0)
    assert report.reasons["CANCELLED"] > 10


def test_who_claims_units_that_it_did_not_use_is_convicted_of_fraud() -> None:
    """A result covers the meter, so that a wrong meter is wrong work, even where all the work was done."""
    report = play("overclaim", "operators = 6\nshare = 1.0", used=0.5)
    assert row(report).deterred
    assert row(report).caught > 0.5
    assert report.false_slashes == 0


@pytest.mark.parametrize("work_s", [600, 3600])
def test_who_commits_at_once_is_audited_all_the_same(work_s: int) -> None:
    """Made-up work is there in a second; auditors still get the three minutes that an honest segment takes."""
    report = play("hasty", "operators = 4", work_s=work_s, leases=8)
    assert row(report).extra < 0
    assert row(report).caught > 0.5
    assert report.false_slashes == 0


def test_with_audits_switched_off_the_cheat_is_seen_to_win() -> None:
    """A rule that thinks nothing can be saved never audits a veteran; then skipping yields the cost of all work."""
    won = row(play("full-skip", "operators = 4", rules="saving_ppm = 0", history=10**9))
    assert won.extra == pytest.approx(12 * 0.7)
    assert not won.deterred
    assert won.caught == 0


def test_without_a_stake_worth_losing_a_rate_for_a_larger_one_invites_cheats() -> None:
    """The rate follows the stake: a newcomer without any is audited every time, and caught at its first lease."""
    caught = row(play("full-skip", "operators = 8", stake=0.0, history=10**9))
    assert caught.caught > 0.9
    assert caught.until_caught is not None
    assert caught.until_caught < 2


def test_a_gain_outside_makes_sabotage_worth_its_stake() -> None:
    """The promise ends where a wrong result is worth more elsewhere than audits can take."""
    assert row(play("sabotage", "operators = 12\ngain = 20.0")).extra > 0


def test_who_keeps_its_outputs_is_convicted_of_the_first() -> None:
    """The panel asks more than once, as each of its members must before it says anything."""
    kept = row(play("withhold-outputs", "operators = 12"))
    assert (kept.caught, kept.until_caught) == (1, 1)


def test_who_cancels_late_pays_more_than_it_destroys() -> None:
    """Griefing costs the griefer several times what it costs its victim."""
    griefed = row(play("griefer", "operators = 4\nafter = 0.9"))
    assert griefed.victim is not None
    assert -griefed.extra / 12 > 2 * abs(griefed.victim)


@pytest.mark.parametrize(("seats", "harmless"), [(4, True), (14, False)])
def test_a_ring_that_accuses_and_judges_needs_more_seats_than_the_rules_allow_for(
    seats: int, harmless: bool
) -> None:
    """A fifth of the panel pays for its accusations; seven tenths convict whom they like."""
    honest = '\n[[groups]]\nstrategy = "honest"\noperators = 10'
    report = play("accusing-ring", f"operators = {seats}" + honest, history=0, leases=3)
    assert (report.rows[0].extra < 0, report.false_slashes == 0) == (harmless, harmless)


def test_a_newcomer_is_caught_at_once() -> None:
    """Without history every lease is audited: the first wrong one convicts."""
    caught = row(play("full-skip", "operators = 4", history=0))
    assert (caught.caught, caught.until_caught) == (1, 1)


@pytest.mark.parametrize("window_s", [60, 600])
def test_one_stake_covers_many_leases_at_once(window_s: int) -> None:
    """What was committed behind a lease that is still judged isn't paid, so a window shorter than a conviction gains nothing."""
    market = MARKET.replace("used =", "parallel = 40\nused =").replace("seeds = 3", "seeds = 2")
    terms = {
        "strategy": "full-skip",
        "uneven": 1,
        "slack": 1,
        "group": "operators = 10",
        "rules": f"window_s = {window_s}",
    }
    text = market.format(history=200, used=1.0, stake=10.0, leases=40, work_s=600, **terms)
    report = simulate(decode_scenario(text))
    assert row(report).caught > 0.9
    assert row(report).extra < 0
