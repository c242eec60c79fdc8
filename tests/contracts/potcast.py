"""Pots among the cast: payer pays, gate evaluates, ann, bob and stranger gave data, val, vic and vow sit on the panel."""

from typing import Any

import msgspec
from eth_hash.auto import keccak

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.twin.state import UINT256_MAX
from clusterai.protocol.ids import ZERO_ADDRESS, Digest
from clusterai.protocol.pots import Pot, Scores
from tests.contracts.cast import AT, EVERYONE, HOTS, KEYS, OWNERS, RULES, Pair
from tests.contracts.vaultcast import raw_of

AMOUNT = 10_007
BOND = AMOUNT * 500 // 10_000
WINDOW_S = RULES.window_s
GAVE = ("ann", "bob", "stranger")
PARTICIPANTS = tuple(sorted(EVERYONE[name].address for name in GAVE))
NAMES = tuple(
    next(name for name, key in EVERYONE.items() if key.address == address) for address in PARTICIPANTS
)
"""In the order of the pot."""


def digest(text: str) -> Digest:
    return Digest(keccak(text.encode()))


EVIDENCE = digest("evidence")


def pot_of(now_s: int, name: str = "study", **changes: Any) -> Pot:
    fields: dict[str, Any] = {
        "payer": EVERYONE["payer"].address,
        "evaluator": HOTS["gate"].address,
        "study": digest(name),
        "amount_wei": AMOUNT,
        "full": 0,
        "join_by_s": now_s + 100,
        "score_by_s": now_s + 100,
        "referral_bps": 0,
        "nonce": digest(name + " nonce"),
        "participants": PARTICIPANTS,
        **changes,
    }
    fields.setdefault("referrers", (ZERO_ADDRESS,) * len(fields["participants"]))
    return Pot(**fields)


def digest_of(pot: Pot, scores: tuple[int, ...]) -> Digest:
    return Scores(pot.struct(), EVIDENCE, scores).struct()


class PotPair(Pair):
    """Chains with a panel, on which anyone may put up a pot."""

    def populate(self) -> None:
        super().populate()
        for who in EVERYONE.values():
            self.expect(calls.Approve(AT.rewards, UINT256_MAX), who)
        for name in ("val", "vic", "vow"):
            self.expect(calls.Enlist(), HOTS[name])
        self.advance(1)

    def opened(self, **changes: Any) -> Pot:
        pot = pot_of(self.now_s, **changes)
        self.expect(calls.OpenPot(pot), EVERYONE["payer"])
        return pot

    def joined(self, *names: str, **changes: Any) -> Pot:
        """Opened, and joined by these participants in this order; by all if none is named."""
        pot = self.opened(**changes)
        for name in names or [name for name, key in EVERYONE.items() if key.address in pot.participants]:
            self.expect(calls.JoinPot(pot, digest(name)), EVERYONE[name])
        return pot

    def scored(self, *scores: int, **changes: Any) -> Pot:
        pot = self.joined(**changes)
        self.advance(5)
        self.expect(calls.ScorePot(pot, EVIDENCE, scores), HOTS["gate"])
        return pot

    def vote(self, pot: Pot, digest: Digest, *names: str) -> tuple[Event, ...]:
        events: tuple[Event, ...] = ()
        for name in names:
            events = self.expect(calls.VotePot(pot, digest), HOTS[name])
        return events

    def closed(self, pot: Pot, *scores: int) -> dict[str, int]:
        """Close it; what everyone can take afterwards."""
        self.expect(calls.ClosePot(pot, EVIDENCE, scores), EVERYONE["deployer"])
        return self.owed()

    def owed(self) -> dict[str, int]:
        found = {name: self.twin.rewards.owed(key.address) for name, key in EVERYONE.items()}
        return {name: amount for name, amount in found.items() if amount}

    def compare_pots(self) -> None:
        """Every view of Rewards equals the twin's, and the contract holds open pots, bonds and what is owed, to the unit."""
        read, twin = self.bytecode.read, self.twin.rewards
        self.bytecode.enter(self.block())
        keys: list[Any] = [key for key, _ in self.twin.state()]
        for _, which in [key for key in keys if key[0] == "pot"]:
            stand = twin.stand(which)
            assert raw_of(read("Rewards", "standOf", which)) == msgspec.structs.astuple(stand)
            for one in KEYS:
                assert read("Rewards", "rowsOf", which, one) == twin.rows(which, one)
            for name in OWNERS:
                member = OWNERS[name].address
                assert read("Rewards", "voted", which, member) == twin.voted(which, member)
        for _, which, what in [key for key in keys if key[0] == "pot_weight"]:
            assert read("Rewards", "weightOf", which, what) == twin.weight(which, what)
        for who in KEYS:
            assert read("Rewards", "owed", who) == twin.owed(who)
        assert read("Token", "balanceOf", AT.rewards) == self.twin.token.balance(AT.rewards)

    def held(self, pots: list[Pot]) -> int:
        """What the contract must hold while these are all the pots that ever were."""
        sums = sum(self.twin.rewards.owed(who) for who in KEYS)
        for pot in pots:
            stand = self.twin.rewards.stand(pot.struct())
            sums += pot.amount_wei if stand.stage in (1, 2, 3, 4) else 0
            sums += stand.bond if stand.stage == 3 else 0
            sums += stand.score_bond if stand.stage in (2, 3) else 0
        return sums
