"""How often to audit, so that cheating costs more than it saves; and at what share of the work.

    EV(cheat) - EV(honest) = s + B - p d (R + S + B) + p phi (R + S)
    p* = (1 + mu)(s + B) / [ d (R + S + B) - phi (R + S) ],   d = d0 (1 - r^m)

R price of the work, s what cheating saves, B gain outside of the network, S stake, p audit probability, d0 the
check's sensitivity, r the adversary's share of auditor weight, m auditors, phi false convictions, mu margin.
Money may be in any unit: only ratios matter. These are forecasts; nothing here is signed, so floats serve.
"""

import math
from collections.abc import Sequence

import msgspec

VETERAN_AT = 10
"""A provider with N valid results in a row is audited at least at rate 10 / (N + 1)."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What one cheat weighs.

    Attributes:
        saved: cost that cheating saves, in prices of the work (s/R).
        stake: what a conviction takes beyond the pay, in prices of the work (S/R).
        gain: what a wrong result is worth to the cheat outside of the network (B/R).
        sensitivity: probability that the check of a wrong receipt convicts (d0).
        corrupt: the adversary's share of auditor weight (r).
        auditors: who check each drawn receipt (m).
        false_positive: probability that an honest audited receipt is convicted (phi).
        margin: by how much honesty shall win (mu).
    """

    saved: float
    stake: float
    gain: float = 0.0
    sensitivity: float = 0.99
    corrupt: float = 0.2
    auditors: int = 1
    false_positive: float = 0.0
    margin: float = 0.2


def detection(terms: Terms) -> float:
    """d: an audited cheat is convicted."""
    return terms.sensitivity * (1 - terms.corrupt**terms.auditors)


def advantage(terms: Terms, rate: float) -> float:
    """Mean profit of cheating over honesty per unit of work, in prices of the work; negative where honesty wins."""
    caught = rate * detection(terms) * (1 + terms.stake + terms.gain)
    accused = rate * terms.false_positive * (1 + terms.stake)
    return terms.saved + terms.gain - caught + accused


def least_rate(terms: Terms) -> float:
    """p*: the least audit probability that deters. Above 1 auditing can't deter alone: see `replicas`."""
    at_risk = detection(terms) * (1 + terms.stake + terms.gain) - terms.false_positive * (1 + terms.stake)
    if at_risk <= 0:
        return math.inf
    return (1 + terms.margin) * (terms.saved + terms.gain) / at_risk


def rate(terms: Terms, valid_in_a_row: int) -> float:
    """The probability to audit with: reputation lowers it down to p*, never below."""
    return min(1.0, max(least_rate(terms), min(1.0, VETERAN_AT / (valid_in_a_row + 1))))


def bribed(rate: float, share: float, tries: int = 1) -> float:
    """p': how often a cheat is drawn that may have the deciding block made anew, p' = p (1 - q (1 - p)) for one try.

    f_0 = p,  f_k = (1 - q) p + q p f_{k-1}:  each block is the briber's with probability q, who lets it go where it draws
    the cheat. Without an end that is (1 - q) p / (1 - q p). Where one beacon draws from n things, p is 1 - (1 - p)^n.

    Args:
        share: q, the share of blocks whose makers the cheat owns or pays.
        tries: blocks that may be let go in a row.
    """
    drawn = rate
    for _ in range(tries):
        drawn = (1 - share) * rate + share * rate * drawn
    return drawn


def bribe(terms: Terms, rate: float) -> float:
    """What letting one drawing block go is worth to a cheat, (1 - p) d (R + S + B), in prices of the work: above what
    the block earns, somebody can be paid for it."""
    return (1 - rate) * detection(terms) * (1 + terms.stake + terms.gain)


def unbribed_rate(rate: float, share: float) -> float:
    """The probability to audit with so that p stays after one try: p' (1 - q (1 - p')) = p."""
    return 2 * rate / (1 - share + math.sqrt((1 - share) ** 2 + 4 * share * rate))


def reexecuted(rate: float, segments: int) -> float:
    """Share of the work that audits repeat, when one of `segments` equal parts is checked."""
    return rate / segments


def burst(terms: Terms, rate: float, jobs: int, forfeit_all: bool) -> float:
    """What cheating on `jobs` at once yields over honesty, in prices of one job.

    Why everything unsettled is forfeited: one stake covers many jobs, and a cheat who loses only the jobs that
    were caught comes out ahead by doing many at once.
    """
    q = rate * detection(terms)
    caught_once = 1 - (1 - q) ** jobs
    lost_pay = jobs * caught_once if forfeit_all else jobs * q
    return jobs * terms.saved - caught_once * terms.stake - lost_pay


def epochs(terms: Terms, totals: Sequence[float], rates: Sequence[float]) -> float:
    """What cheating throughout epochs yields over honesty that are committed one after the other, each while those before
    can still be judged. At rates of p* it is never more than nothing, whatever the totals: the first that is caught
    forfeits the stake, its own total and those of all behind it, which are no older.

    With q_j = p_j d >= s T_j / (S + T_j) and A_j = (1 - q_1) ... (1 - q_{j-1}), what is lost is

        sum_j A_j q_j (S + T_j)  +  sum_j A_j q_j sum_{i>j} T_i   >=   sum_j A_j s T_j  +  sum_j (1 - A_j) s T_j   =   s sum_j T_j

    since 1 - A_j = sum_{i<j} A_i q_i, and s <= 1.

    Args:
        totals: what each epoch comes to (T_j); `terms.stake` is in the same unit.
        rates: the share of each that is drawn, as if all of its value were in one receipt.
    """
    gained = terms.saved * math.fsum(totals)
    uncaught, lost, left = 1.0, 0.0, math.fsum(totals)
    for total, rate in zip(totals, rates, strict=True):
        q = rate * detection(terms)
        lost += uncaught * q * (terms.stake + left)
        uncaught *= 1 - q
        left -= total
    return gained - lost


def trap_rate(check_cost: float, fee: float, bond: float) -> float:
    """Planted wrong receipts, as a share of what an auditor gets, above which rubber-stamping loses: K/(A + V). `bond`: all that it
    loses besides the fee, its stake where that is slashed."""
    return check_cost / (fee + bond)


def replicas(gain: float, stake: float, corrupt: float) -> int:
    """The least n with r^n B < (1 - r^n) n S: how many must agree where a wrong result is worth `gain` outside.

    Raises:
        ValueError: nothing is at stake or everyone is corrupt, so that no number suffices.
    """
    if not 0 <= corrupt < 1 or (stake <= 0 < gain):
        raise ValueError(f"no number of replicas deters with stake {stake} and corrupt share {corrupt}")
    n = 1
    while corrupt**n * gain >= (1 - corrupt**n) * n * stake and gain > 0:
        n += 1
    return n


def misjudged(corrupt: float, committee: int = 15) -> tuple[float, float]:
    """How often referees of whom the share `corrupt` lie together convict the honest, and acquit a cheat: the first committee
    convicts with six sevenths of its seats, the second, three times as large, with two thirds, both acquit with two thirds, and
    the panel after them is `corrupt` by less than a third."""
    second = 3 * committee
    convicts = _at_least(committee, math.ceil(committee * 6 / 7), corrupt)
    acquits = _at_least(committee, math.ceil(committee * 2 / 3), corrupt)
    # The honest decide at once unless the liars keep them from it.
    cleared = 1 - _at_least(committee, committee - math.ceil(committee * 2 / 3) + 1, corrupt)
    caught = 1 - _at_least(committee, committee - math.ceil(committee * 6 / 7) + 1, corrupt)
    later = _at_least(second, math.ceil(second * 2 / 3), corrupt)
    return convicts + (1 - cleared - convicts) * later, acquits + (1 - caught - acquits) * later


def _at_least(seats: int, wanted: int, share: float) -> float:
    return math.fsum(
        math.comb(seats, n) * share**n * (1 - share) ** (seats - n) for n in range(wanted, seats + 1)
    )
