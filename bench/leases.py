"""Gas of a lease from its opening to its end, by who pays it: undrawn, audited, contested, withheld, on a full panel.

    python bench/leases.py

On the bytecode, under Cancun's rules, with cold storage for each transaction as on a real chain. A lease of 1,048,576
segments is audited with proofs of 20 digests; the panel has 3 seats, then all 64.
"""

# ruff: noqa: E402 - the contract tests' cast plays here too, from the repository's root
import sys
from collections import defaultdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from eth_hash.auto import keccak

from clusterai.ledger.core import calls
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.signing import Key
from tests.contracts.cast import AT, DEPLOYER, HOTS, OWNERS, RULES
from tests.contracts.leasecast import SALT, Job, LeasePair, commit, hot, job, opening, sealed

Costs = dict[str, int]


class Ledger:
    """Does calls and notes who pays how much gas for them."""

    def __init__(self, pair: LeasePair) -> None:
        self.pair = pair
        self.costs: dict[str, Costs] = defaultdict(dict)

    def do(self, who: str, call: calls.Call, sender: Key) -> None:
        self.pair.expect(call, sender)
        name = type(call).__name__
        while name in self.costs[who]:
            name += "'"
        self.costs[who][name] = self.pair.bytecode.gas_used

    def show(self, title: str) -> None:
        total = sum(sum(paid.values()) for paid in self.costs.values())
        print(f"\n{title}: {total:,} gas")
        for who, paid in self.costs.items():
            steps = ", ".join(f"{name} {gas:,}" for name, gas in paid.items())
            print(f"  {who:<10}{sum(paid.values()):>9,}  {steps}")


def begin(pair: LeasePair, one: Job) -> Ledger:
    book = Ledger(pair)
    book.do("requester", calls.OpenLease(one.terms), hot(one.requester))
    book.do("provider", calls.AcceptLease(one.lease), hot(one.provider))
    pair.advance(9)
    book.do("provider", commit(one), hot(one.provider))
    return book


def draw(book: Ledger, one: Job) -> None:
    book.pair.advance(RULES.epoch_s)
    book.do("anyone", calls.Tick(), DEPLOYER)
    book.do("anyone", calls.DrawLease(one.lease), DEPLOYER)


def audit(book: Ledger, one: Job) -> None:
    pair = book.pair
    name = pair.auditor(one)
    segment = one.segment(pair)
    result = one.honest.result(segment)
    shown = pair.twin.audits.audit(one.lease).shown
    book.do("auditors", sealed(one, name, result), HOTS[name])
    if not shown:
        book.do("provider", opening(pair, one, segment), hot(one.provider))
    book.do("auditors", calls.RevealAudit(one.lease, result, SALT), HOTS[name])


def close(book: Ledger, one: Job) -> None:
    book.pair.advance(RULES.window_s + 1)
    book.do("anyone", calls.CloseLease(one.lease), DEPLOYER)


def main() -> None:
    pair = LeasePair()
    pair.populate()
    book = begin(pair, one := job(pair, "first"))
    draw(book, one)
    audit(book, one)
    close(book, one)
    book.show("audited, 4 segments, first of its provider")
    book = begin(pair, one := job(pair, "unverified", determinism=0))
    close(book, one)
    book.show("unverified")
    book = begin(pair, one := job(pair, "long", segments=2**20))
    draw(book, one)
    audit(book, one)
    close(book, one)
    book.show("audited, 1,048,576 segments")
    book = begin(pair, one := job(pair, "withheld", provider="bob"))
    draw(book, one)
    first = pair.auditor(one)
    for name in (first, *(other for other in ("val", "vic", "vow") if other != first)):
        if pair.twin.leases.lease(one.lease).state == 3:
            book.do("auditors", calls.ReportWithheld(one.lease), HOTS[name])
    book.show("withheld, convicted by the panel")
    for n in range(61):
        key = Key(keccak(b"seat %d" % n))
        pair.expect(calls.Transfer(key.address, 2_000), DEPLOYER)
        pair.expect(calls.Approve(AT.registry, 2_000), key)
        pair.expect(calls.Register(4, ZERO_DIGEST), key)
        pair.expect(calls.Bond(1_000), key)
        pair.expect(calls.Enlist(), key)
    print(f"\na seat: {pair.bytecode.gas_used:,} gas")
    book = begin(pair, one := job(pair, "full", cheats=True))
    draw(book, one)
    book.show("a draw on a full panel of 64")
    found = pair.twin.leases.lease(one.lease)
    assert found.provider == OWNERS["ann"].address


if __name__ == "__main__":
    main()
