"""Pots as people see them, folded from what Rewards told; and the transactions that open, join, score, contest, close and empty them.

Pots are between payers, participants and the contract: no gateway has a say in them.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from clusterai.cli import staking
from clusterai.cli.contributing import Left
from clusterai.cli.failure import Exit, Failure
from clusterai.ledger.adapters.client import ChainClient, Refused
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.abi import Codec
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, checksummed, hex0x
from clusterai.protocol.pots import Pot, Scores, earned_wei
from clusterai.protocol.signing import Key

BOND_BPS = 500
"""As the contract has it, for scoring and for contesting."""
CLOSE_GAS, SHARE_GAS = 300_000, 150_000
SOON_S = 60
"""A beacon that comes within so long is waited for."""
POLL_S = 1.0


class Joined(msgspec.Struct, frozen=True):
    participant: Address
    rows: Digest


class Told(msgspec.Struct, frozen=True):
    """A pot as its events tell it.

    Attributes:
        joined: in the order of their commitments.
        round: of the beacon that breaks ties; None before anybody joined.
        scored: what the evaluator said; None if it said nothing.
        standing: digest of the scores that stand; zeros where there are none.
        stage: open, scored, contested, decided, closed.
        by_s: when the stage's clock runs out.
    """

    id: Digest
    pot: Pot
    stage: str
    by_s: int
    joined: tuple[Joined, ...] = ()
    round: int | None = None
    scored: Scores | None = None
    standing: Digest = ZERO_DIGEST
    contester: Address | None = None
    shares: tuple[tuple[Address, int], ...] = ()
    referrals: tuple[tuple[Address, int], ...] = ()
    refunded_wei: int = 0

    def asked(self) -> tuple[tuple[Address, Digest], ...]:
        return tuple((it.participant, it.rows) for it in self.joined)


class Scored(msgspec.Struct, frozen=True):
    """What a study's files say of who joined.

    Attributes:
        contributors: one for each that counts, as JSON; `owner` and `score` are in each.
        left: who counts for nothing, and why.
    """

    evidence: Digest
    scores: tuple[int, ...]
    contributors: tuple[dict[str, Any], ...]
    left: tuple[Left, ...]


class Fixed(Protocol):
    """What a pot is put up for: rows that are valued (`rewarding.RowsPot`), or a federated run (`runpots.RunPot`)."""

    @property
    def digest(self) -> Digest: ...
    @property
    def pot_wei(self) -> int: ...
    def scored(self, told: Told, beacon: Callable[[], bytes]) -> Scored:
        """
        Args:
            beacon: gives the word that the chain drew after the last to join, and may wait for it: asked where something is drawn.

        Raises:
            Failure: the files aren't of this study.
        """
        ...


def fold(told: Iterable[events.Event]) -> dict[Digest, Told]:
    """All pots, in the order in which they were opened."""
    pots: dict[Digest, Told] = {}

    def change(pot: Digest, **fields: Any) -> None:
        pots[pot] = msgspec.structs.replace(pots[pot], **fields)

    for event in told:
        match event:
            case events.PotOpened(id=pot, pot=terms):
                pots[pot] = Told(pot, terms, "open", terms.score_by_s)
            case events.PotJoined(id=pot, participant=who, rows=rows, round=number):
                change(pot, joined=(*pots[pot].joined, Joined(who, rows)), round=number)
            case events.PotScored(id=pot, digest=digest, evidence=evidence, contest_by_s=by_s, scores=scores):
                said = Scores(pot, evidence, scores)
                change(pot, stage="scored", by_s=by_s, scored=said, standing=digest)
            case events.PotContested(id=pot, contester=who, vote_by_s=by_s):
                change(pot, stage="contested", by_s=by_s, contester=who)
            case events.PotDecided(id=pot, digest=digest):
                change(pot, stage="decided", standing=digest)
            case events.ShareEarned(id=pot, participant=who, amount=amount):
                change(pot, shares=(*pots[pot].shares, (who, amount)))
            case events.ReferralEarned(id=pot, referrer=who, amount=amount):
                change(pot, referrals=(*pots[pot].referrals, (who, amount)))
            case events.PotClosed(id=pot, refunded=refunded):
                change(pot, stage="closed", refunded_wei=refunded)
            case _:
                pass
    return pots


# --- the chain ---


def look(network: Network) -> list[Told]:
    """
    Raises:
        Failure: the chain can't be asked.
    """
    return list(fold(staking.asked(network, _told)).values())


def one(network: Network, name: str) -> Told:
    """The pot whose id is `name` or begins so.

    Raises:
        Failure: there is none, or more than one.
    """
    found = [it for it in look(network) if hex0x(it.id).startswith(name.lower())]
    if len(found) != 1:
        why = "several begin so" if found else "no pot's id begins so"
        raise Failure(f"{name} names no pot", why, "clusterai data reward list", Exit.NOT_FOUND)
    return found[0]


async def _told(client: ChainClient) -> list[events.Event]:
    rewards = client.network.contracts.rewards
    query = {"fromBlock": hex(client.network.start_block), "address": hex0x(rewards)}
    return [
        it for log in await client.rpc.ask("eth_getLogs", query) if (it := _event(client.codec, rewards, log))
    ]


def _event(codec: Codec, rewards: Address, log: Any) -> events.Event | None:
    topics = tuple(bytes.fromhex(topic[2:]) for topic in log["topics"])
    return codec.event(rewards, topics, bytes.fromhex(log["data"][2:]))


def beacon_of(network: Network, key: Key, told: Told) -> bytes:
    """The word of the round that the last to join named; where the chain's own beacon draws and nobody asked it, this does.

    Raises:
        Failure: it isn't there yet, and it is long until it is.
    """
    if told.round is None:
        return bytes(32)

    async def word(client: ChainClient) -> bytes | None:
        try:
            return await client.read("ChainBeacon", "beacons", told.round)
        except Refused:
            return None

    epoch_s, ticked = network.rules.epoch_s, -1
    # Twice: the chain's clock needn't be ours.
    ends_s = time.monotonic() + (2 * epoch_s if epoch_s <= SOON_S else 0)
    while (found := staking.asked(network, word)) is None:
        epoch = int(time.time()) // epoch_s
        if network.rules.beacon is None and epoch != ticked:
            ticked = epoch
            staking.carry_out(network, key, [calls.Tick()])
        elif time.monotonic() >= ends_s:
            raise Failure(
                "the beacon for this pot isn't there yet",
                f"it comes within {epoch_s} s of the last to join",
                "try again then",
            )
        else:
            time.sleep(POLL_S)
    return found


def owed_wei(network: Network, who: Address) -> int:
    return staking.asked(network, lambda client: client.read("Rewards", "owed", who))


def owner_of(network: Network, key: Address) -> Address:
    """Whom a key acts for: itself, where it is nobody's hot key."""
    owner = staking.asked(network, lambda client: client.read("Registry", "ownerOf", key))
    return key if owner == ZERO_ADDRESS else owner


def now_s(network: Network) -> int:
    async def head(client: ChainClient) -> int:
        return (await client.head()).timestamp_s

    return staking.asked(network, head)


# --- what is sent ---


def opened(
    payer: Address,
    evaluator: Address,
    terms: Fixed,
    brought: Sequence[tuple[Address, Address]],
    full: int,
    now_s: int,
    join_s: int,
    score_s: int,
    referral_bps: int,
) -> Pot:
    """
    Args:
        brought: participants, each with who brought it or zeros.

    Raises:
        Failure: the contract would refuse it.
    """
    rising = sorted(brought)
    participants = tuple(bytes(it) for it, _ in rising)
    if len(set(participants)) != len(participants):
        raise Failure("a participant is named twice", "join its tables", code=Exit.USAGE)
    if evaluator in participants:
        raise Failure("the evaluator takes part", "nobody scores itself", "--evaluator ADDRESS", Exit.USAGE)
    if any(one == by for one, by in rising):
        raise Failure("a participant is named as who brought it itself", code=Exit.USAGE)
    pot = Pot(
        payer=payer,
        evaluator=evaluator,
        study=terms.digest,
        amount_wei=terms.pot_wei,
        full=full,
        join_by_s=now_s + join_s,
        score_by_s=now_s + join_s + score_s,
        referral_bps=referral_bps,
        nonce=secrets.token_bytes(32),
        participants=participants,
        referrers=tuple(bytes(it) for _, it in rising),
    )
    try:
        return msgspec.convert(msgspec.to_builtins(pot), Pot)
    except msgspec.ValidationError as error:
        raise Failure("there can be no such pot", str(error), code=Exit.USAGE) from None


class Found(msgspec.Struct, frozen=True):
    """Scores that these files make."""

    scores: Scores
    contributors: tuple[dict[str, Any], ...]
    left: tuple[Left, ...]

    @property
    def digest(self) -> Digest:
        return self.scores.struct()


def found(told: Told, terms: Fixed, beacon: Callable[[], bytes]) -> Found:
    """
    Raises:
        Failure: these files are another study's.
    """
    if terms.digest != told.pot.study:
        raise Failure(
            "these files aren't the pot's study",
            f"it was put up for {hex0x(Digest(told.pot.study))}, they make {hex0x(terms.digest)}",
            "ask its payer for study.json and what it names",
            Exit.UNTRUE,
        )
    scored = terms.scored(told, beacon)
    scores = Scores(told.id, scored.evidence, scored.scores)
    return Found(scores, scored.contributors, scored.left)


def bond_wei(pot: Pot) -> int:
    return pot.amount_wei * BOND_BPS // 10_000


def closing(told: Told, mine: Scores | None, now_s: int, window_s: int) -> calls.ClosePot:
    """
    Args:
        mine: scores that the caller's own files make, where the panel replaced the evaluator's.

    Raises:
        Failure: not now, or nobody here knows the scores that stand.
    """
    if told.stage == "closed":
        raise Failure("this pot is closed", next="clusterai data reward claim")
    until_s = told.by_s + (window_s if told.stage == "open" else 0)
    if told.stage != "decided" and now_s <= until_s:
        raise Failure(
            f"this pot is {told.stage}", f"it can be closed in {until_s - now_s + 1} s", "try again then"
        )
    if told.standing == ZERO_DIGEST:
        return calls.ClosePot(told.pot, ZERO_DIGEST, ())
    for scores in (told.scored, mine):
        if scores is not None and scores.struct() == told.standing:
            return calls.ClosePot(told.pot, Digest(scores.evidence), scores.scores)
    raise Failure(
        "the panel decided for other scores than the evaluator's",
        "they have to be made again to be paid by",
        "name the study's file",
    )


def gas_of(call: calls.ClosePot) -> int:
    return CLOSE_GAS + SHARE_GAS * len(call.pot.participants)


# --- what people read ---


def shown(told: Told) -> dict[str, Any]:
    """As JSON."""
    pot = told.pot
    rows = {it.participant: (at, it.rows) for at, it in enumerate(told.joined, 1)}
    scores = told.scored.scores if told.scored else (0,) * len(pot.participants)
    earned, brought = dict(told.shares), dict(told.referrals)
    return {
        "pot": hex0x(told.id),
        "stage": told.stage,
        "by_s": told.by_s,
        "payer": checksummed(Address(pot.payer)),
        "evaluator": checksummed(Address(pot.evaluator)),
        "study": hex0x(Digest(pot.study)),
        "amount_wei": pot.amount_wei,
        "refunded_wei": told.refunded_wei,
        "full": str(pot.full),
        "join_by_s": pot.join_by_s,
        "score_by_s": pot.score_by_s,
        "referral_bps": pot.referral_bps,
        "scores": hex0x(told.standing),
        "participants": [
            {
                "owner": checksummed(Address(one)),
                "referrer": checksummed(Address(by)) if by != ZERO_ADDRESS else None,
                "place": rows.get(Address(one), (0, ZERO_DIGEST))[0],
                "rows": hex0x(rows.get(Address(one), (0, ZERO_DIGEST))[1]),
                "score": str(score),
                "expected_wei": wei,
                "earned_wei": earned.get(Address(one), 0),
            }
            for one, by, score, wei in zip(
                pot.participants,
                pot.referrers,
                scores,
                earned_wei(pot.amount_wei, pot.full, scores),
                strict=True,
            )
        ],
        "referrals": {checksummed(who): amount for who, amount in brought.items()},
    }
