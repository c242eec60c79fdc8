"""What payers, evaluators, participants and the panel ask of Rewards; the same rules as in `calls`, which names all of these too."""

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.pots import Pot


class _Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class OpenPot(_Call, frozen=True):
    """By its payer, who approved the contract."""

    pot: Pot


class JoinPot(_Call, frozen=True):
    """By a participant's owner or hot key, at `join_by_s` at the latest, once; `rows` digests what it gives."""

    pot: Pot
    rows: Digest


class ScorePot(_Call, frozen=True):
    """By the evaluator, who approved a twentieth of the pot, once all joined or `join_by_s` is over, at `score_by_s` at the latest."""

    pot: Pot
    evidence: Digest
    scores: tuple[int, ...]


class ContestPot(_Call, frozen=True):
    """By a participant or a member of the panel, who approved a twentieth of the pot: within a window of the scores, or of their absence."""

    pot: Pot


class VotePot(_Call, frozen=True):
    """By everyone who had a seat before the scores and is no party: `protocol.pots.Scores.struct()` of what is right; zero gives it back."""

    pot: Pot
    digest: Digest


class ClosePot(_Call, frozen=True):
    """By anyone, with the scores that stand; empty where there are none."""

    pot: Pot
    evidence: Digest
    scores: tuple[int, ...]


class TakeOwed(_Call, frozen=True):
    """By anyone: pays `who`."""

    who: Address


RewardsCall = OpenPot | JoinPot | ScorePot | ContestPot | VotePot | ClosePot | TakeOwed
