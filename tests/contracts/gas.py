"""What the contracts cost: `python -m tests.contracts.gas` prints gas by call, in the steady state (warm slots)."""

import msgspec

from clusterai.ledger.core import calls
from clusterai.ledger.core.twin.vaults import sale_id
from clusterai.protocol import merkle
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.statements import Verdict
from clusterai.protocol.vaults import Operation, name_digest
from tests.contracts.cast import (
    AT,
    DEPLOYER,
    HOTS,
    OWNERS,
    PAYER,
    RULES,
    STRANGER,
    Pair,
    channel,
    claim_row,
    judged,
    receipts,
)
from tests.contracts.potcast import EVIDENCE, PARTICIPANTS, PotPair, digest_of
from tests.contracts.stakecast import StakePair
from tests.contracts.vaultcast import PRICE, Log, VaultPair, dataset, digest, grant, signed, terms

SIZES = (1, 10, 100)


def main() -> None:
    pair = Pair()
    pair.populate()
    chain = pair.bytecode
    ann, hot = OWNERS["ann"], HOTS["ann"]
    channels = [channel(PAYER, ann.address, salt=100 + i) for i in range(100)]
    for config in channels:
        pair.expect(calls.Deposit(config, 5_000), PAYER)
    print(f"{'deposit (allowance)':<34}{chain.gas_used:>10,}")
    pair.expect(calls.Transfer(ann.address, 1), PAYER)
    transfer = chain.gas_used
    print(f"{'transfer':<34}{transfer:>10,}")
    total = commit = 0
    for name in ("first claims", "steady claims"):
        for size in SIZES:
            pair.advance(RULES.epoch_s)
            epoch = pair.now_s // RULES.epoch_s - 1
            leaves = receipts("ann", epoch, 100)
            pair.expect(calls.CommitEpoch(epoch, merkle.root(leaves), 100, 100_000), hot)
            commit = chain.gas_used
            total += 1
            rows = tuple(claim_row(config, total) for config in channels[:size])
            if name == "first claims":
                rows = tuple(claim_row(config, total) for config in channels[-size:]) if size < 100 else rows
            pair.expect(calls.Claim(rows), hot)
            gas = chain.gas_used
            print(f"{name + f', {size} channels':<34}{gas:>10,}   {gas // size:>8,} a channel")
    print(f"{'commitEpoch (steady)':<34}{commit:>10,}")
    pair.advance(2 * RULES.window_s)
    pair.expect(calls.Settle(ann.address, AT.token), DEPLOYER)
    print(f"{'settle':<34}{chain.gas_used:>10,}")
    pair.advance(RULES.epoch_s)
    epoch = pair.now_s // RULES.epoch_s - 1
    leaves = receipts("ann", epoch, 1_000)
    pair.expect(calls.CommitEpoch(epoch, merkle.root(leaves), 1_000, 10), hot)
    pair.advance(RULES.epoch_s)
    pair.expect(calls.Tick(), DEPLOYER)
    print(f"{'tick':<34}{chain.gas_used:>10,}")
    index = next(i for i in range(1_000) if pair.twin.court.drawn(ann.address, epoch, i))
    for who, what in (("val", "vote, 1 of 1000 receipts"), ("vic", "vote that convicts")):
        verdict = Verdict(ann.address, epoch, index, leaves[index], 2, ZERO_DIGEST)
        pair.expect(calls.Vote(verdict, merkle.proof(leaves, index), judged(verdict, HOTS[who])), DEPLOYER)
        print(f"{what:<34}{chain.gas_used:>10,}")
    stakes()
    vaults()
    pots()


def stakes() -> None:
    pair = StakePair()
    pair.populate()

    def told(what: str) -> None:
        print(f"{what:<34}{pair.bytecode.gas_used:>10,}")

    pair.reward("val", 1_000)
    told("payReward, nobody behind")
    for validator in ("val", "val"):
        pair.delegate("payer", validator, 1_000)
        told("delegateStake")
    pair.to_period(2)
    for _ in range(2):
        pair.reward("val", 1_000)
        told("payReward, shared")
    pair.expect(calls.ClaimReward(OWNERS["val"].address), PAYER)
    told("claimReward")
    pair.undelegate("payer", "val", 500)
    told("undelegateStake")
    pair.to_period(2)
    pair.expect(calls.WithdrawStake(OWNERS["val"].address), PAYER)
    told("withdrawStake")
    pair.expect(calls.Bond(1_000), OWNERS["val"])
    told("bond of a seated validator")


def vaults() -> None:
    pair = VaultPair()
    pair.populate()
    hot, log = HOTS["ann"], Log("ann")

    def told(what: str) -> None:
        print(f"{what:<34}{pair.bytecode.gas_used:>10,}")

    pair.expect(calls.ListDataset(name_digest("other"), terms()), hot)
    told("listDataset, first")
    pair.expect(calls.ListDataset(name_digest("other"), terms(2)), hot)
    told("listDataset, again")
    one = pair.granted(grant("ann", "payer"))
    told("grantAccess")
    for _ in range(1_000):
        log.use(one, 1_000, pair.now_s)
    for what in ("anchorLog, first", "anchorLog, again"):
        pair.anchored(log)
        told(what)
    bought = calls.BuyCopy(dataset("ann"), digest("copy"), STRANGER.address, PRICE, pair.now_s)
    pair.expect(bought, PAYER)
    told("buyCopy")
    copy = grant("ann", "stranger", "copy", operation=int(Operation.COPY))
    pair.expect(calls.DeliverCopy(PAYER.address, copy), hot)
    told("deliverCopy")
    pair.advance(RULES.window_s + 1)
    sale = sale_id(dataset("ann"), digest("copy"), STRANGER.address, PAYER.address)
    pair.expect(calls.CloseSale(sale), STRANGER)
    told("closeSale")
    pair.expect(calls.EndGrant(one.struct(), 1), hot)
    told("endGrant")
    use = log.uses[400]
    other = msgspec.structs.replace(use, result=ZERO_DIGEST)
    pair.expect(calls.ProveOmission(other, signed(other, hot), log.piece(400)), STRANGER)
    told("proveOmission, 1 of 1000 uses")
    over = Log("bob")
    own = pair.granted(grant("bob", "payer"), "bob")
    for spent in (1_500_000, *[1] * 998, 1_500_000):
        over.use(own, spent, pair.now_s)
    pair.anchored(over)
    pair.expect(calls.ProveSpending(over.shown(999)), STRANGER)
    told("proveSpending, 1 of 1000 uses")


def pots() -> None:
    pair = PotPair()
    pair.populate()

    def told(what: str) -> None:
        print(f"{what:<34}{pair.bytecode.gas_used:>10,}")

    for many in (3, 64):
        who = PARTICIPANTS if many == 3 else tuple(bytes([1] * 19 + [n]) for n in range(64))
        scores = tuple(7 + n for n in range(many))
        pot = pair.opened(participants=who, name=f"pot {many}")
        told(f"openPot, {many}")
        pair.expect(calls.ScorePot(pot, EVIDENCE, scores), HOTS["gate"])
        told(f"scorePot, {many}")
        if many == 3:
            pair.expect(calls.ContestPot(pot), STRANGER)
            told("contestPot, 3")
            pair.vote(pot, digest_of(pot, scores), "val")
            told("votePot, 3")
            pair.vote(pot, digest_of(pot, scores), "vic")
            told("votePot that decides, 3")
        pair.advance(RULES.window_s + 1)
        pair.closed(pot, *scores)
        told(f"closePot, {many}")
    pair.expect(calls.TakeOwed(PAYER.address), STRANGER)
    told("takeOwed")


if __name__ == "__main__":
    main()
