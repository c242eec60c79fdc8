"""A vault's side of one round: what it tells, and what it never tells.

Safety by forgetting: keys and seeds are drawn here, live in this object alone, and are gone with it. A member that is killed
has dropped out of the round; no journal could make it answer one phase twice, with different words. Asked the same again it
repeats its answer; asked otherwise it refuses.

What it refuses to do, whatever the server says: deal where fewer than `threshold` (with itself) are there, mask without
as many dealers, open anything before a quorum endorsed the one roll that it endorsed itself, open both secrets of one
neighbour, take part when it has expired.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clusterai.protocol.canonical import digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key, signed_by
from clusterai.vault.core.secagg import graph, vectors
from clusterai.vault.core.secagg.messages import (
    Advert,
    Boxes,
    Claim,
    Dealt,
    Endorsed,
    Endorsement,
    Invite,
    Masked,
    Neighbours,
    Opened,
    Refused,
    Roll,
    Spec,
    ToMember,
    ToServer,
    advert_digest,
    claim_digest,
    dealt_digest,
    endorsement_digest,
    roll_digest,
)
from clusterai.vault.core.secagg.primitives import (
    Primitives,
    commitment,
    mask_secret,
    own_digest,
    own_key,
    pair_key,
    share_digest,
)


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """On which rounds a vault takes part, whoever asks."""

    least_members: int = 3
    """Invited. A sum of two tells each the other's. Of three, one may drop out later: see `Contribution.least`."""
    colluders: float = 0.1
    """Share of the members who may conspire with the server; with everyone as neighbour far more are tolerated."""
    most_values: int = 2**24


class Contribution(msgspec.Struct, frozen=True):
    """What a member puts into a sum: int64 values, already clipped, scaled, weighted and noised, and its declared weight.

    Attributes:
        least: members that must be left in the sum, this one too; 0 leaves it to the round's quorum. Of a sum of two, each reads the other's part.
    """

    values: npt.NDArray[np.int64]
    weight: int = 1
    least: int = 0


def objection(spec: Spec, me: Address, terms: Terms, now_s: float) -> Refused | None:
    """Why `me` would not take part, or None."""

    def no(code: str, detail: str) -> Refused:
        return Refused(spec.round(), code, detail)

    if now_s > spec.expires_s:
        return no("expired", f"the round ended at {spec.expires_s}")
    if list(spec.cohort) != sorted(set(spec.cohort)):
        return no("cohort", "the cohort must be sorted and without repetition")
    if spec.group >= spec.groups or spec.groups > len(spec.cohort):
        return no("group", f"group {spec.group} of {spec.groups} for {len(spec.cohort)} members")
    everyone = graph.members(spec)
    if me not in everyone:
        return no("stranger", "this vault is not drawn into the group")
    count = len(everyone)
    if count < terms.least_members:
        return no("few", f"{count} members; this vault asks for {terms.least_members}")
    if spec.degree % 2 or spec.threshold > (spec.degree or count - 1):
        return no("graph", f"degree {spec.degree} and threshold {spec.threshold} make no graph")
    if graph.betrayal(count, spec.degree, spec.threshold, int(terms.colluders * count)) > graph.SAFE:
        return no(
            "unsafe",
            f"{spec.threshold} shares of {spec.degree or count - 1} neighbours open a secret too easily",
        )
    if spec.length > terms.most_values:
        return no("long", f"{spec.length} values; this vault sums {terms.most_values} at most")
    return None


class Member:
    """`answer` each frame of the server; whoever calls has checked the spec by `objection` and that `server` is who asks."""

    def __init__(
        self, spec: Spec, key: Key, me: Address, given: Contribution, primitives: Primitives
    ) -> None:
        assert len(given.values) == spec.length
        self.spec = spec
        self.round = spec.round()
        self._key, self._primitives, self._given = key, primitives, given
        self._me = graph.members(spec).index(me)
        self._members = graph.members(spec)
        self._near = graph.neighbours(spec, self._me)
        self._own_seed = primitives.random(16)
        self._mask_seed = primitives.random(16)
        self._mask_secret = mask_secret(self._mask_seed)
        self._seal_secret = primitives.random(32)
        self._keys: dict[int, tuple[bytes, bytes]] = {}
        self._held: dict[int, tuple[bytes, bytes] | None] = {}
        self._claim: Claim | None = None
        self.endorsed: Digest | None = None
        """The digest of the one roll that this member signed."""
        self.left_out = False
        """The server was given this member's vector and wrote a roll without it: said to be lost, or dropped on purpose."""
        self._roll: Roll | None = None
        self._answered: dict[type[Any], tuple[Digest, ToServer]] = {}

    def answer(self, frame: ToMember, now_s: float) -> ToServer:
        if now_s > self.spec.expires_s:
            self.forget()
            return self._no("expired", f"the round ended at {self.spec.expires_s}")
        asked, before = digest(frame), self._answered.get(type(frame))
        if before is not None:
            return (
                before[1]
                if before[0] == asked
                else self._no("asked", "this phase was asked otherwise before")
            )
        match frame:
            case Invite(spec):
                reply = self._advertise() if spec == self.spec else self._no("spec", "another round's")
            case Neighbours(round, adverts):
                reply = self._deal(adverts) if round == self.round else self._no("round", "another round's")
            case Boxes(round, boxes):
                reply = self._mask(boxes) if round == self.round else self._no("round", "another round's")
            case Roll():
                reply = (
                    self._endorse(frame)
                    if frame.round == self.round
                    else self._no("round", "another round's")
                )
            case Endorsed(round, signatures):
                reply = (
                    self._open(signatures) if round == self.round else self._no("round", "another round's")
                )
        if not isinstance(reply, Refused):
            self._answered[type(frame)] = (asked, reply)
        return reply

    @property
    def over(self) -> bool:
        """It has opened what it opens: all that is left to do is to be checked."""
        return Endorsed in self._answered

    def forget(self) -> None:
        """Nothing can be opened any more; what was said can still be repeated."""
        self._own_seed = self._mask_seed = self._mask_secret = self._seal_secret = b""
        self._held.clear()
        self._keys.clear()
        self._claim = self._roll = None

    def _no(self, code: str, detail: str) -> Refused:
        return Refused(self.round, code, detail)

    def _advertise(self) -> ToServer:
        mask_key, seal_key = (self._primitives.public(s) for s in (self._mask_secret, self._seal_secret))
        signature = self._key.sign(advert_digest(self.round, self._me, mask_key, seal_key))
        return Advert(self.round, self._me, mask_key, seal_key, signature)

    def _deal(self, told: tuple[tuple[int, bytes, bytes, bytes], ...]) -> ToServer:
        if Invite not in self._answered:
            return self._no("order", "adverts before the invitation")
        keys: dict[int, tuple[bytes, bytes]] = {}
        for parts in told:
            advert = Advert(self.round, *parts)
            known = advert.member in self._near and advert.member not in keys
            if not known or not advert_true(self._members, advert):
                return self._no("advert", f"member {advert.member}'s advert is not its own")
            keys[advert.member] = (advert.mask_key, advert.seal_key)
        if list(keys) != sorted(keys):
            return self._no("advert", "adverts out of order")
        # One less where it is itself among the last quorum: should it drop out too, there is no sum anyway.
        if len(keys) + 1 < self.spec.threshold:
            return self._no("few", f"{len(keys)} neighbours; {self.spec.threshold} shares open a secret")
        own, mask = (
            self._primitives.split(self.spec.threshold, len(self._near), seed)
            for seed in (self._own_seed, self._mask_seed)
        )
        boxes: list[tuple[int, bytes, bytes, bytes]] = []
        for j, (_, seal_key) in keys.items():
            at = self._near.index(j)
            # The dealer's number is sealed in: both ends derive one key, and a server could hand a box back to its dealer.
            plain = self._me.to_bytes(4) + own[at] + mask[at]
            box = self._primitives.seal(self._seal_secret, seal_key, plain)
            digests = (
                share_digest(self.round, self._me, j, b"own", own[at]),
                share_digest(self.round, self._me, j, b"mask", mask[at]),
            )
            boxes.append((j, box, *digests))
        self._keys = keys
        held_to = tuple((j, a, b) for j, _, a, b in boxes)
        return Dealt(self.round, tuple(boxes), self._key.sign(dealt_digest(self.round, self._me, held_to)))

    def _mask(self, boxes: tuple[tuple[int, bytes, bytes, bytes], ...]) -> ToServer:
        dealers = [box[0] for box in boxes]
        if Neighbours not in self._answered:
            return self._no("order", "boxes before adverts")
        if dealers != sorted(set(dealers)) or any(j not in self._keys for j in dealers):
            return self._no("boxes", "boxes of others than the neighbours who advertised")
        if len(dealers) + 1 < self.spec.threshold:
            return self._no(
                "few", f"{len(dealers)} neighbours dealt; {self.spec.threshold} shares open a secret"
            )
        bits = self.spec.bits
        total = vectors.wrap(self._given.values, bits)
        vectors.add_mask(total, own_key(self.round, self._own_seed), 1, self._primitives)
        for j, box, *digests in boxes:
            mask_public, seal_public = self._keys[j]
            shared = self._primitives.agree(self._mask_secret, mask_public)
            if shared is None:
                return self._no("advert", f"member {j}'s key is no key")
            low, high = sorted((self._me, j))
            key = pair_key(self.round, shared, low, high)
            vectors.add_mask(total, key, 1 if self._me == low else -1, self._primitives)
            plain = self._primitives.unseal(self._seal_secret, seal_public, box)
            # A dealer who sealed rubbish is summed like others; its secrets just have one holder less.
            self._held[j] = self._shares_in(plain, j, digests)
        packed = vectors.pack(total, bits)
        own = own_digest(self.round, self._me, self._own_seed)
        bound = commitment(self.round, vectors.commit(packed, self.spec.length, bits).root, own)
        signature = self._key.sign(claim_digest(self.round, self._me, bound, self._given.weight))
        self._claim = Claim(self._me, bound, self._given.weight, signature)
        rubbish = tuple(j for j, held in self._held.items() if held is None)
        return Masked(self.round, self._claim, own, rubbish, packed)

    def _shares_in(
        self, plain: bytes | None, dealer: int, digests: list[bytes]
    ) -> tuple[bytes, bytes] | None:
        if plain is None or len(plain) != 36 or int.from_bytes(plain[:4]) != dealer:
            return None
        own, mask = plain[4:20], plain[20:]
        held_to = [
            share_digest(self.round, dealer, self._me, kind, share)
            for kind, share in ((b"own", own), (b"mask", mask))
        ]
        return (own, mask) if held_to == digests else None

    def _endorse(self, roll: Roll) -> ToServer:
        if self._claim is None:
            return self._no("order", "a roll before the masked vectors")
        wrong = roll_fault(self.spec, roll)
        if wrong is not None:
            return self._no("roll", wrong)
        if self._claim not in roll.claims:
            self.left_out = True
            return self._no("roll", "this vault's own claim is not on it")
        if len(roll.claims) < self._given.least:
            return self._no("few", f"{len(roll.claims)} are left; this vault asks for {self._given.least}")
        if [j for j in self._near if j in roll.dealers] != list(self._held):
            return self._no("roll", "names other dealers than those whose boxes came here")
        told = roll_digest(self.round, roll.dealers, roll.claims)
        self.endorsed, self._roll = told, roll
        return Endorsement(self.round, self._key.sign(endorsement_digest(self.round, told)))

    def _open(self, endorsements: tuple[tuple[int, bytes], ...]) -> ToServer:
        if self._roll is None or self.endorsed is None:
            return self._no("order", "endorsements before a roll")
        wrong = endorsements_fault(self.spec, self._roll, endorsements)
        if wrong is not None:
            return self._no("endorsements", wrong)
        summed = {claim.member for claim in self._roll.claims}
        shares = tuple(
            (j, held[0] if j in summed else held[1]) for j, held in self._held.items() if held is not None
        )
        opened = Opened(self.round, self._own_seed, shares)
        self.forget()
        return opened


def advert_true(members: tuple[Address, ...], advert: Advert) -> bool:
    if advert.member >= len(members):
        return False
    said = advert_digest(advert.round, advert.member, advert.mask_key, advert.seal_key)
    return signed_by(members[advert.member], said, advert.signature)


def claim_true(members: tuple[Address, ...], round_id: bytes, claim: Claim) -> bool:
    if claim.member >= len(members):
        return False
    said = claim_digest(round_id, claim.member, claim.commitment, claim.weight)
    return signed_by(members[claim.member], said, claim.signature)


def roll_fault(spec: Spec, roll: Roll) -> str | None:
    """What is wrong with a roll by itself."""
    members, round_id = graph.members(spec), spec.round()
    if roll.round != round_id:
        return "of another round"
    numbers = [claim.member for claim in roll.claims]
    if numbers != sorted(set(numbers)) or list(roll.dealers) != sorted(set(roll.dealers)):
        return "out of order"
    if not set(numbers) <= set(roll.dealers) or (roll.dealers and roll.dealers[-1] >= len(members)):
        return "names whom it can't"
    if len(numbers) < graph.quorum(len(members)):
        return f"{len(numbers)} of {len(members)} members; {graph.quorum(len(members))} must be summed"
    said = roll_digest(round_id, roll.dealers, roll.claims)
    if not signed_by(Address(spec.server), said, roll.signature):
        return "not signed by the server"
    for claim in roll.claims:
        if not claim_true(members, round_id, claim):
            return f"member {claim.member} never claimed this"
    return None


def endorsements_fault(spec: Spec, roll: Roll, endorsements: tuple[tuple[int, bytes], ...]) -> str | None:
    members, round_id = graph.members(spec), spec.round()
    numbers = [i for i, _ in endorsements]
    if numbers != sorted(set(numbers)) or not set(numbers) <= {claim.member for claim in roll.claims}:
        return "of others than those who are summed"
    if len(numbers) < graph.quorum(len(members)):
        return f"{len(numbers)} endorsed this roll; {graph.quorum(len(members))} must"
    said = endorsement_digest(round_id, roll_digest(round_id, roll.dealers, roll.claims))
    for i, signature in endorsements:
        if not signed_by(members[i], said, signature):
            return f"member {i} endorsed another roll"
    return None
