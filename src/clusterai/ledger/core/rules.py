"""The parameters of a network's contracts: clocks, shares and bonds. What is out of bounds the contracts themselves refuse."""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.money import WEI_PER_TOKEN


class AuditRules(msgspec.Struct, frozen=True, kw_only=True):
    """How leases are audited; shares in millionths, clocks at most 7 days, all of them the governor's to change.

    Args:
        saving_ppm: what cheating saves of the price.
        sensitivity_ppm: how often a check of wrong work finds it wrong.
        corrupt_ppm: the adversary's share of the panel's stake.
        margin_ppm: by how much honesty shall win.
        commit_s: for an auditor to begin, twice as long with each that is drawn after another, at most by four times what the terms allow for
            a segment; it has twice the mean time of a segment besides.
        open_s: for the provider to show the drawn segment.
        reveal_s: for the auditor to reveal, and again for a trap to be sprung. Longer than a validator that was killed needs to be back: it
            would lose its bond.
        dispute_s: for an accuser to start a dispute.
        bond_wei: what an auditor puts up at least; at most 1000 tokens.
        bond_ppm: of the provider's stake, if that is more; of an accuser as of an auditor. At most a tenth, the default: who copies
            instead of running loses its bond where there is bait, so the less bait is needed the more it is (`audit.core.rate.trap_rate`).
    """

    saving_ppm: int = 700_000
    sensitivity_ppm: int = 990_000
    corrupt_ppm: int = 200_000
    margin_ppm: int = 200_000
    commit_s: int = 30
    open_s: int = 20
    reveal_s: int = 20
    dispute_s: int = 20
    bond_wei: int = WEI_PER_TOKEN
    bond_ppm: int = 100_000


class DisputeRules(msgspec.Struct, frozen=True, kw_only=True):
    """How disputes about audits are played; clocks at most 7 days.

    Args:
        move_s: for each party's move, besides twice the mean time of a segment, or what the audit took if that was longer.
        seal_s: for referees to commit, besides the same.
        reveal_s: for referees to reveal.
        committee: seats of the first committee, at most 15; the second has three times as many, the third is the panel.
        bond_wei: what the accuser puts up at least, see `AuditRules.bond_ppm`; at most 1000 tokens.
    """

    move_s: int = 20
    seal_s: int = 30
    reveal_s: int = 20
    committee: int = 15
    bond_wei: int = WEI_PER_TOKEN


class DeliveryRules(msgspec.Struct, frozen=True, kw_only=True):
    """How it is found out whether outputs were handed over.

    Args:
        deliver_s: for the panel to ask the provider and to report; at most 7 days. What members take of one lease is bounded
            (`work.batch.core.delivery`), so that a provider can serve all of them in this time.
        bond_wei: what the requester puts up, and what serving the panel is worth; at most 1000 tokens.
    """

    deliver_s: int = 30
    bond_wei: int = WEI_PER_TOKEN


class DrandRules(msgspec.Struct, frozen=True, kw_only=True):
    """Which drand network draws, and how late after an epoch. The contract needs a chain with EIP-2537 (Prague).

    Args:
        chain: hash of the drand network, under which relays serve it.
        key: its public key, on G2: four coordinates of 48 bytes, x before y, the real part first.
        genesis_s: when its round 1 is signed.
        period_s: between two rounds.
        margin_s: how late a block may be made public, counted from its own timestamp, before its maker could know the
            pulse that draws from what is in it. On Ethereum a proposer of k slots in a row can hold blocks back for 12 k s.
    """

    chain: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    key: Annotated[str, Meta(pattern="^[0-9a-f]{384}$")]
    genesis_s: int
    period_s: int
    margin_s: int = 72

    def time_of(self, number: int) -> int:
        """When a round is signed, in seconds of Unix time; rounds count from 1."""
        return self.genesis_s + (number - 1) * self.period_s

    def round_of(self, epoch: int, epoch_s: int) -> int:
        """The round that draws from what was committed in an epoch: the first later than the margin after its end."""
        end_s = (epoch + 1) * epoch_s + self.margin_s
        return 1 if end_s < self.genesis_s else (end_s - self.genesis_s) // self.period_s + 2


QUICKNET = DrandRules(
    chain="52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    key=(
        "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
        "03cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
        "0e5db2b6bfbb01c867749cadffca88b36c24f3012ba09fc4d3022c5c37dce0f977d3adb5d183c7477c442b1f04515273"
        "01a714f2edb74119a2f2b0d5a7c75ba902d163700a61bc224ededd8e63aef7be1aaf8e93d7a9718b047ccddb3eb5d68b"
    ),
    genesis_s=1_692_803_367,
    period_s=3,
)
"""The League of Entropy's network without chaining, a round every 3 s."""


class BadRules(ValueError):
    """These rules don't fit together: {why}."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Constructor parameters of the contracts; the contracts refuse what is out of bounds.

    Args:
        epoch_s: seconds of an epoch.
        window_s: seconds in which a commitment can be judged and for which claims are held; at least 4 epochs.
        unbond_delay_s: seconds for which stake that is being taken out can still be slashed; above window_s.
        audit_rate_ppm: least share of receipts that is drawn, in millionths; 1 to 10**6.
        bounty_bps: share of a slashed stake for the finder, in ten-thousandths; at most 5000.
        answer_s: seconds for beginning to answer a challenge, and again for the rest of the answer; at most a sixth of
            window_s, and long enough for the chain to take 64 parts of a million gas.
        challenge_bond_wei: what an answered challenge pays to the provider; at most 1000 tokens.
        supply_wei: all tokens that will ever exist.
        audits: how leases are audited.
        disputes: how contested audits are decided.
        deliveries: how a requester gets its outputs or its money.
        beacon: the drand network that draws; none: the chain's own randomness.
    """

    epoch_s: int
    window_s: int
    unbond_delay_s: int
    audit_rate_ppm: int
    bounty_bps: int
    answer_s: int
    challenge_bond_wei: int
    supply_wei: int = 10**9 * WEI_PER_TOKEN
    audits: AuditRules = AuditRules()
    disputes: DisputeRules = DisputeRules()
    deliveries: DeliveryRules = DeliveryRules()
    beacon: DrandRules | None = None


LOCAL = Rules(
    epoch_s=15,
    window_s=60,
    unbond_delay_s=120,
    audit_rate_ppm=250_000,
    bounty_bps=5_000,
    answer_s=8,
    challenge_bond_wei=WEI_PER_TOKEN,
)
"""A network on one machine: a cheat is convicted within a minute, and a newcomer sees audits often. A challenge leaves three
times `answer_s` of the window: the shorter that is, the longer a provider is asked over gateways first."""


def local_rules(window_s: int) -> Rules:
    """`LOCAL` with another window. Lies are convicted as fast. What a provider that is away owes is demanded on chain three times `answer_s` before the window ends; it has
    a tenth of the window to begin its answer, a minute at most, so a longer window forgives a longer restart, also of a gateway and a node at once."""
    return msgspec.structs.replace(
        LOCAL,
        window_s=window_s,
        unbond_delay_s=2 * window_s,
        answer_s=max(LOCAL.answer_s, min(60, window_s // 10)),
    )
