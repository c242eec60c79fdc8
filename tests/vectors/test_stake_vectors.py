"""Chapter 9 of the specification: its vectors by its formulas alone, and its numbers against the code."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from eth_abi import abi

from clusterai.ledger.core.twin.delegations import MAX_COMMISSION_BPS, MAX_PENDING, UNIT
from clusterai.ledger.core.twin.registry import DELEGATED_PER_OWN
from clusterai.protocol.keccak import keccak

HERE = Path(__file__).parent
TEXT = (HERE.parents[1] / "docs" / "spec" / "09-stake.md").read_text()
VECTORS: dict[str, Any] = json.loads((HERE / "stakes.json").read_text())
SIGNATURES = {
    "DelegateStake": "delegateStake(address,uint128)",
    "UndelegateStake": "undelegateStake(address,uint128)",
    "WithdrawStake": "withdrawStake(address)",
    "ClaimReward": "claimReward(address)",
    "AnnounceCommission": "announceCommission(uint16)",
    "PayReward": "payReward(address,uint128)",
    "Bond": "bond(uint256)",
    "Unbond": "unbond(uint256)",
}


def test_numbers_of_stake_are_those_of_the_code() -> None:
    """Bounds in the text are the constants."""
    for phrase in (
        f"min(delegated, {DELEGATED_PER_OWN} own)",
        f"At most {MAX_PENDING} undelegations",
        f"at most {MAX_COMMISSION_BPS:,} ten-thousandths",
    ):
        assert phrase in TEXT
    assert UNIT == 10**18
    assert "U = 10^18" in TEXT


def test_calls_are_encoded_by_their_signatures() -> None:
    """Four bytes of the function's name and types, then its arguments as words."""
    for step in VECTORS["history"]:
        signature = SIGNATURES[step["call"]]
        kinds = signature.partition("(")[2].rstrip(")").split(",")
        named = [VECTORS["validator"]] if kinds[0] == "address" else []
        arguments = [*named, step["amount"]][: len(kinds)]
        data = keccak(signature.encode())[:4] + abi.encode(kinds, arguments)
        assert step["data"] == "0x" + data.hex()


def test_history_follows_from_the_chapters_formulas() -> None:
    """Votes, and what each could claim, recomputed from the text without sums per unit."""
    delay_s, own = VECTORS["delay_s"], VECTORS["own"]
    owns, commission = [(0, own)], [(0, 0)]
    lots: dict[str, list[tuple[int, int]]] = {"ann": [], "bob": []}
    earned = {"ann": Fraction(0), "bob": Fraction(0)}
    for step in VECTORS["history"]:
        period, who, amount = step["at_s"] // delay_s, step["by"], step["amount"]
        match step["call"]:
            case "DelegateStake":
                lots[who].append((period, amount))
            case "UndelegateStake":
                since, last = lots[who].pop()
                lots[who].append((since, last - amount))
            case "Bond" | "Unbond":
                own += amount if step["call"] == "Bond" else -amount
                owns.append((period, own))
            case "AnnounceCommission":
                commission.append((step["at_s"] + delay_s, amount))
            case "ClaimReward":
                earned[who] -= int(earned[who])
            case "PayReward":
                active = {it: sum(n for since, n in lots[it] if period - since >= 2) for it in lots}
                least = min(
                    [[n for since, n in owns if since < period - 1][-1]]
                    + [n for since, n in owns if since >= period - 1]
                )
                part = amount * sum(active.values()) // (least + sum(active.values()))
                bps = [n for from_s, n in commission if from_s <= step["at_s"]][-1]
                shared = part - part * bps // 10_000
                for it in lots:
                    earned[it] += Fraction(shared * active[it], sum(active.values()))
            case _:
                assert step["call"] == "WithdrawStake"
        delegated = sum(n for it in lots for _, n in lots[it])
        assert step["votes"] == own + min(delegated, DELEGATED_PER_OWN * own)
        for it in lots:
            assert 0 <= earned[it] - step[it] < 2, "rounded down once more where it was claimed"
        assert step["unclaimed"] >= step["ann"] + step["bob"]
