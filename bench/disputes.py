"""What a dispute costs: rounds, gas by move and payer, and time, for segments of a thousand to a thousand million steps.

    python bench/disputes.py

On the bytecode, under Cancun's rules, with cold storage for each transaction as on a real chain, with a panel of nine and
of all 64 seats. Time is the chain's: `soon`, if everyone answers in the next block (2 s; all referees in one), and `late`, if everyone takes
all the time there is, for a provider that had 8 s for the segment. The gas of the audit that comes before isn't in it.
"""

# ruff: noqa: E402 - the contract tests' cast plays here too, from the repository's root
import sys
from collections import defaultdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from clusterai.ledger.core import calls
from clusterai.ledger.core.twin.disputes import ASSERTING, ENDED, REVEALING, SEALING
from clusterai.protocol import bisection
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.leases import sealed_result
from clusterai.protocol.signing import Key
from tests.contracts.cast import AT, DEPLOYER, key
from tests.contracts.disputecast import SIGNERS, DisputePair, traces, wrong_from
from tests.contracts.leasecast import SALT, hot, job

BLOCK_S = 2


def dispute(steps: int, seats: int, late: bool, determinism: int = 1) -> tuple[dict[str, list[int]], int]:
    """Gas by call, and the seconds from the first move to the last."""
    pair = DisputePair()
    pair.populate()
    for n in range(seats - pair.twin.panel.taken()):
        who = key(f"bench {n}")
        SIGNERS[who.address] = who
        for call in (calls.Transfer(who.address, 100_000),):
            pair.expect(call, DEPLOYER)
        for spender in (AT.registry, AT.audits, AT.disputes):
            pair.expect(calls.Approve(spender, 100_000), who)
        for call in (calls.Register(4, ZERO_DIGEST), calls.Bond(40_000), calls.Enlist()):
            pair.expect(call, who)
    pair.advance(1)
    one = job(pair, cheats=True, metered=steps, segments=1, determinism=determinism)
    accuser, _ = pair.contested(one, one.honest.result(1))
    truth, claimed, parts = traces(pair, one)
    cheat = wrong_from(truth, 1 + 2 * parts // 3, claimed, parts)
    gas: dict[str, list[int]] = defaultdict(list)

    def do(call: calls.Call, sender: Key) -> None:
        pair.expect(call, sender)
        gas[type(call).__name__].append(pair.bytecode.gas_used)
        if pair.dispute(one).stage not in (SEALING, REVEALING, ENDED):
            wait()

    def wait() -> None:
        """Until the next block, or until the clock is all but over."""
        pair.advance(pair.dispute(one).by_s - pair.now_s if late else BLOCK_S)

    began_s = pair.now_s
    do(calls.StartDispute(one.lease), accuser)
    while pair.dispute(one).stage < SEALING:
        game = pair.dispute(one).game
        if pair.dispute(one).stage == ASSERTING:
            do(calls.AssertTrace(one.lease, bisection.assertion(game, cheat)), hot(one.provider))
        else:
            part, denied = bisection.selection(game, truth)
            do(calls.SelectRange(one.lease, part, denied, game.asserted), accuser)
    result = truth(pair.dispute(one).game.high)
    referees = pair.committee(one)
    wait()
    for who in referees:
        do(calls.CommitReferee(one.lease, sealed_result(result, who, one.lease, SALT)), SIGNERS[who])
    wait()
    for who in referees:
        if pair.dispute(one).stage != ENDED:
            do(calls.RevealReferee(one.lease, result, SALT), SIGNERS[who])
    return gas, pair.now_s - began_s


def main() -> None:
    for steps, seats in ((10**3, 9), (10**6, 9), (10**9, 9), (10**9, 64), (1, 9)):
        gas, soon_s = dispute(steps, seats, late=False)
        _, late_s = dispute(steps, seats, late=True)
        total = sum(map(sum, gas.values()))
        rounds = len(gas["AssertTrace"])
        print(
            f"\n{steps:,} steps, {seats} seats: {rounds} rounds, {total:,} gas, {soon_s} s soon, {late_s} s late"
        )
        for name, paid in gas.items():
            if paid:
                most = f"{min(paid):,} to {max(paid):,} each" if len(set(paid)) > 1 else f"{paid[0]:,} each"
                print(f"  {name:<16}{len(paid):>3} times{sum(paid):>12,}   {most}")
        accuser = sum(gas["StartDispute"]) + sum(gas["SelectRange"])
        print(
            f"  accuser {accuser:,}, provider {sum(gas['AssertTrace']):,}, referees {total - accuser - sum(gas['AssertTrace']):,}"
        )


if __name__ == "__main__":
    main()
