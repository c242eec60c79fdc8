"""A pot that is shared out by what each participant's data was worth, and the scores by which it is; `Rewards.sol` hashes both alike."""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.eip712 import struct_hash, type_hash, word
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.statements import U40, U63, AddressBytes, DigestBytes, Wei

MOST_PARTICIPANTS = 64
MOST_REFERRAL_BPS = 2_000

Score = U63


class Pot(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Put up before a study begins. `struct()` is its id.

    Attributes:
        evaluator: a key that is no participant's; its address scores.
        study: digest of what is to be evaluated, and how.
        amount_wei: what can be earned.
        full: the sum of scores at which all of it is earned; below it the rest goes back. 0: all is always earned.
        join_by_s: until when participants commit to their rows; who didn't earns nothing.
        referral_bps: ten-thousandths of a participant's share that go to who brought it.
        participants: owners, in rising order.
        referrers: who brought each of them; zeros where nobody did.
    """

    payer: AddressBytes
    evaluator: AddressBytes
    study: DigestBytes
    amount_wei: Wei
    full: Score
    join_by_s: U40
    score_by_s: U40
    referral_bps: Annotated[int, Meta(ge=0, le=MOST_REFERRAL_BPS)]
    nonce: DigestBytes
    participants: Annotated[tuple[AddressBytes, ...], Meta(min_length=1, max_length=MOST_PARTICIPANTS)]
    referrers: Annotated[tuple[AddressBytes, ...], Meta(min_length=1, max_length=MOST_PARTICIPANTS)]

    TYPE = type_hash(
        "Pot(address payer,address evaluator,bytes32 study,uint128 amount,uint64 full,uint40 joinBy,uint40 scoreBy,"
        "uint16 referralBps,bytes32 nonce,address[] participants,address[] referrers)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.payer,
            self.evaluator,
            self.study,
            self.amount_wei,
            self.full,
            self.join_by_s,
            self.score_by_s,
            self.referral_bps,
            self.nonce,
            keccak(b"".join(map(word, self.participants))),
            keccak(b"".join(map(word, self.referrers))),
        )


class Scores(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What each participant's data was worth, in their order. `struct()` is what is committed to, contested and voted for.

    Attributes:
        evidence: digest of what anyone needs to come to the same.
    """

    pot: DigestBytes
    evidence: DigestBytes
    scores: Annotated[tuple[Score, ...], Meta(min_length=1, max_length=MOST_PARTICIPANTS)]

    TYPE = type_hash("Scores(bytes32 pot,bytes32 evidence,uint64[] scores)")

    def struct(self) -> Digest:
        return struct_hash(self.TYPE, self.pot, self.evidence, keccak(b"".join(map(word, self.scores))))


def earned_wei(amount_wei: int, full: int, scores: tuple[int, ...]) -> tuple[int, ...]:
    """What each participant earns: quotients, and one unit each to the largest remainders, of equal ones to the first.

    Their sum is the whole pot where the scores reach `full`, else its part rounded down; a score of 0 earns 0.
    """
    total = sum(scores)
    if not total:
        return (0,) * len(scores)
    whole = max(total, full)
    shares = [amount_wei * score // whole for score in scores]
    remainders = [amount_wei * score % whole for score in scores]
    left = amount_wei * total // whole - sum(shares)
    for at in sorted(range(len(scores)), key=lambda at: (-remainders[at], at))[:left]:
        shares[at] += 1
    return tuple(shares)


def referral_wei(share_wei: int, referral_bps: int) -> int:
    """What of a share goes to who brought its participant."""
    return share_wei * referral_bps // 10_000
