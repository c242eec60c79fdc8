"""The server's side of one round: five phases, each closed when all answered or its deadline passed.

    adverts ─> dealt ─> masked ─> endorsed ─> opened ─> Summed | Failed
       └─────────┴─────────┴──────────┴──────────┴── who doesn't answer in time, or answers falsely, has dropped out

A third may drop out in all, in whichever phases. What was heard is journaled before the next phase begins, and so is the
closing of a phase with the members that it closed with: a server that is killed resumes there, and asks again only those who
haven't answered. It learns the sum, and each seed of those masks that the sum takes out; whom it may not lie to is the
members' business (`member.py`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key, signed_by
from clusterai.runtime.machine import Received, Save, Send, Started, Tick
from clusterai.vault.core.secagg import graph, vectors
from clusterai.vault.core.secagg.member import advert_true, claim_true
from clusterai.vault.core.secagg.messages import (
    Advert,
    Boxes,
    Dealt,
    Endorsed,
    Endorsement,
    Index,
    Invite,
    Masked,
    Neighbours,
    Opened,
    Refused,
    Roll,
    Spec,
    ToMember,
    ToServer,
    dealt_digest,
    endorsement_digest,
    roll_digest,
)
from clusterai.vault.core.secagg.primitives import (
    Primitives,
    commitment,
    mask_secret,
    own_digest,
    share_digest,
)
from clusterai.vault.core.secagg.transcript import Opening, Transcript, needed, transcript_digest, unmask

PHASES: tuple[type[Any], ...] = (Advert, Dealt, Masked, Endorsement, Opened)
NAMES = ("adverts", "shares", "vectors", "endorsements", "openings")


class Heard(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Record: a member's answer, found good."""

    member: Index
    frame: ToServer


class Closed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Record: a phase ended with those whose answers stand before this."""

    phase: int


class Lost(msgspec.Struct, frozen=True, tag=True):
    """Event: a member can't be reached, or said what no frame is; it is not waited for any longer."""

    who: Address
    why: str


class Summed(msgspec.Struct, frozen=True, tag=True):
    """Effect: the round is done."""

    values: npt.NDArray[np.int64]
    """The sum, lifted to [-2^(bits-1), 2^(bits-1))."""
    packed: bytes
    transcript: Transcript
    gone: dict[Address, str]
    """Who didn't stay to the end, and why; who just fell silent isn't named."""
    blamed: dict[Address, str]
    """Who of them, or of the others, answered what no honest member answers."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Effect: no sum; nothing of anyone's was learnt. Run another round without those blamed."""

    phase: str
    detail: str
    gone: dict[Address, str]
    blamed: dict[Address, str]


class Collector:
    """`step` it; `restore` it from its journal first."""

    RECORDS: Any = Heard | Closed

    def __init__(self, spec: Spec, key: Key, primitives: Primitives, phase_s: float) -> None:
        self.spec = spec
        self.round = spec.round()
        self._key, self._primitives, self._phase_s = key, primitives, phase_s
        self._members = graph.members(spec)
        self._heard: tuple[dict[int, Any], ...] = tuple({} for _ in PHASES)
        self._phase = 0
        self._began_s: float | None = None
        self._gone: dict[int, str] = {}
        self._blamed: dict[int, str] = {}
        self._roll: Roll | None = None
        self.outcome: Summed | Failed | None = None

    # --- records ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self._apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        records: list[msgspec.Struct] = []
        for phase, heard in enumerate(self._heard[: self._phase + 1]):
            records.extend(Heard(member, frame) for member, frame in heard.items())
            if phase < self._phase:
                records.append(Closed(phase))
        return records

    def _apply(self, record: Heard | Closed) -> None:
        match record:
            case Heard(member, frame):
                self._heard[PHASES.index(type(frame))][member] = frame
            case Closed(phase):
                self._phase = phase + 1
                if self._phase == 3:
                    self._roll = self._write_roll()

    # --- the one door ---

    def step(self, event: Any, now_s: float) -> Sequence[Any]:
        if self.outcome is not None:
            return []
        effects: list[Any] = []
        if self._began_s is None:
            self._began_s = now_s
        match event:
            case Started():
                effects.extend(self._ask())
            case Tick():
                pass
            case Lost(who, why):
                if who in self._members:
                    self._gone.setdefault(self._members.index(who), why)
            case Received(sender, frame):
                effects.extend(self._hear(Address(sender), frame))
            case _:
                raise AssertionError(event)
        late = now_s >= self._began_s + self._phase_s or now_s > self.spec.expires_s
        while self.outcome is None and (late or not self._awaited()):
            late = False
            effects.extend(self._close(now_s))
        return effects

    def _expected(self) -> list[int]:
        before = self._heard[self._phase - 1] if self._phase else range(len(self._members))
        return sorted(before)

    def _awaited(self) -> list[int]:
        heard = self._heard[self._phase]
        return [i for i in self._expected() if i not in heard and i not in self._gone]

    def _ask(self) -> list[Send]:
        return [Send(self._members[i], self.request(i)) for i in self._awaited()]

    def request(self, member: int) -> ToMember:
        """What the present phase asks of a member."""
        near = graph.neighbours(self.spec, member)
        match self._phase:
            case 0:
                return Invite(self.spec)
            case 1:
                adverts = self._heard[0]
                there = [adverts[j] for j in near if j in adverts]
                told = tuple((a.member, a.mask_key, a.seal_key, a.signature) for a in there)
                return Neighbours(self.round, told)
            case 2:
                dealt = self._heard[1]
                theirs = [
                    (j, next(box for box in dealt[j].boxes if box[0] == member)) for j in near if j in dealt
                ]
                return Boxes(self.round, tuple((j, *box[1:]) for j, box in theirs))
            case 3:
                assert self._roll is not None
                return self._roll
            case _:
                return Endorsed(self.round, self._endorsements())

    def _endorsements(self) -> tuple[tuple[int, bytes], ...]:
        """A quorum of them is enough for everyone, and a third less to send."""
        heard = self._heard[3]
        chosen = sorted(heard)[: graph.quorum(len(self._members))]
        return tuple((i, heard[i].signature) for i in chosen)

    # --- what members say ---

    def _hear(self, sender: Address, frame: Any) -> list[Any]:
        if sender not in self._members or not isinstance(frame, ToServer) or frame.round != self.round:
            return []
        member = self._members.index(sender)
        if member not in self._expected() or member in self._heard[self._phase] or member in self._gone:
            return []
        if isinstance(frame, Refused):
            self._gone[member] = f"{frame.code}: {frame.detail}"
            return []
        if not isinstance(frame, PHASES[self._phase]):
            return []
        wrong = self._wrong(member, frame)
        if wrong is not None:
            self._gone[member] = self._blamed[member] = wrong
            return []
        record = Heard(member, frame)
        self._apply(record)
        return [Save(record)]

    def _wrong(self, member: int, frame: ToServer) -> str | None:
        match frame:
            case Advert():
                if frame.member != member or not advert_true(self._members, frame):
                    return "an advert that is not its own"
                # Every other member must be able to agree with this key.
                if self._primitives.agree(bytes(31) + b"\x01", frame.mask_key) is None:
                    return "a key of small order"
            case Dealt(round, boxes, signature):
                adverts = self._heard[0]
                if [box[0] for box in boxes] != [
                    j for j in graph.neighbours(self.spec, member) if j in adverts
                ]:
                    return "shares for others than its neighbours"
                held_to = tuple((j, own, mask) for j, _, own, mask in boxes)
                if not signed_by(self._members[member], dealt_digest(round, member, held_to), signature):
                    return "unsigned shares"
            case Masked(round, claim, own, _, vector):
                if claim.member != member or not claim_true(self._members, round, claim):
                    return "a claim that is not its own"
                if len(vector) != vectors.packed_size(self.spec.length, self.spec.bits):
                    return f"a vector of {len(vector)} bytes"
                root = vectors.commit(vector, self.spec.length, self.spec.bits).root
                if commitment(round, root, own) != claim.commitment:
                    return "a claim of another vector"
            case Endorsement(round, signature):
                assert self._roll is not None
                told = endorsement_digest(round, roll_digest(round, self._roll.dealers, self._roll.claims))
                if not signed_by(self._members[member], told, signature):
                    return "endorsed another roll"
            case Opened(round, own, shares):
                if own_digest(round, member, own) != self._heard[2][member].own:
                    return "opened another mask than it committed to"
                near = graph.neighbours(self.spec, member)
                numbers = [j for j, _ in shares]
                if numbers != sorted(set(numbers)) or any(
                    j not in near or j not in self._heard[1] for j in numbers
                ):
                    return "shares of others than its neighbours"
            case Refused():
                pass
        return None

    def _blame_dealers(self) -> None:
        """Who sealed rubbish to more than a third of its holders, by their word: some of that third are honest."""
        for dealer in self._heard[1]:
            near = graph.neighbours(self.spec, dealer)
            cries = [j for j in near if j in self._heard[2] and dealer in self._heard[2][j].rubbish]
            if 3 * len(cries) > len(near):
                self._blamed.setdefault(dealer, f"sealed rubbish to {len(cries)} of {len(near)} neighbours")

    # --- the end of a phase ---

    def _close(self, now_s: float) -> list[Any]:
        count = len(self._heard[self._phase])
        least = graph.quorum(len(self._members))
        # Openings are counted secret by secret: a lost one may have other holders.
        if count < least and self._phase < 4:
            return self._fail(f"{count} of {len(self._members)} members answered; {least} must")
        if self._phase == 4:
            return self._sum()
        if self._phase == 2:
            self._blame_dealers()
        record = Closed(self._phase)
        self._apply(record)
        self._began_s = now_s
        return [Save(record), *self._ask()]

    def _fail(self, detail: str) -> list[Any]:
        self.outcome = Failed(NAMES[self._phase], detail, self._named(self._gone), self._named(self._blamed))
        return [self.outcome]

    def _named(self, members: dict[int, str]) -> dict[Address, str]:
        return {self._members[i]: why for i, why in members.items()}

    def _write_roll(self) -> Roll:
        dealers = tuple(sorted(self._heard[1]))
        claims = tuple(self._heard[2][i].claim for i in sorted(self._heard[2]))
        return Roll(self.round, dealers, claims, self._key.sign(roll_digest(self.round, dealers, claims)))

    def _recover(self, member: int, kind: bytes) -> bytes | str:
        """A seed from the shares that its holders opened; else what is missing.

        A share that isn't the one that the dealer signed is its holder's lie: it had the digest, and said nothing of rubbish.
        """
        near = graph.neighbours(self.spec, member)
        held_to = {j: (own, mask) for j, _, own, mask in self._heard[1][member].boxes}
        shares: dict[int, bytes] = {}
        for at, j in enumerate(near):
            opened = self._heard[4].get(j)
            share = None if opened is None else dict(opened.shares).get(member)
            if share is None:
                continue
            if share_digest(self.round, member, j, kind, share) != held_to[j][kind == b"mask"]:
                self._blamed.setdefault(j, f"opened another share than member {member} had dealt to it")
                continue
            shares[at + 1] = share
            if len(shares) == self.spec.threshold:
                return self._primitives.combine(shares)
        return f"{len(shares)} of {self.spec.threshold} shares of member {member}'s secret"

    def _sum(self) -> list[Any]:
        assert self._roll is not None
        opened, adverts = self._heard[4], self._heard[0]
        own: dict[int, bytes] = {}
        for claim in self._roll.claims:
            i = claim.member
            seed = opened[i].own if i in opened else self._recover(i, b"own")
            if isinstance(seed, str):
                return self._fail(seed)
            if own_digest(self.round, i, seed) != self._heard[2][i].own:
                self._blamed[i] = "dealt shares of another mask than it committed to"
                return self._fail(f"member {i} {self._blamed[i]}")
            own[i] = seed
        dropped: dict[int, bytes] = {}
        for j in needed(self.spec, self._roll):
            seed = self._recover(j, b"mask")
            if isinstance(seed, str):
                return self._fail(seed)
            if self._primitives.public(mask_secret(seed)) != adverts[j].mask_key:
                self._blamed[j] = "dealt shares of another key than it advertised"
                return self._fail(f"member {j} {self._blamed[j]}")
            dropped[j] = seed
        bits, length = self.spec.bits, self.spec.length
        total = np.zeros(length, vectors.word(bits))
        for claim in self._roll.claims:
            total += vectors.unpack(self._heard[2][claim.member].vector, length, bits)
        keys = {i: adverts[i].mask_key for i in self._roll.dealers}
        unmask(self.spec, self._roll, own, dropped, keys, total, self._primitives)
        total = vectors.reduce(total, bits)
        packed = vectors.pack(total, bits)
        transcript = Transcript(
            self.spec,
            self._roll,
            self._endorsements(),
            tuple(adverts[i] for i in self._roll.dealers),
            tuple(self._root(claim.member) for claim in self._roll.claims),
            tuple(own[claim.member] for claim in self._roll.claims),
            tuple(dropped.items()),
            vectors.commit(packed, length, bits).root,
            bytes(65),
        )
        signed = msgspec.structs.replace(transcript, signature=self._key.sign(transcript_digest(transcript)))
        self.outcome = Summed(
            vectors.lift(total, bits), packed, signed, self._named(self._gone), self._named(self._blamed)
        )
        return [self.outcome]

    def _root(self, member: int) -> bytes:
        return vectors.commit(self._heard[2][member].vector, self.spec.length, self.spec.bits).root

    def opening(self, chunk: int) -> Opening:
        """What a verifier needs of one chunk; the round is summed."""
        assert isinstance(self.outcome, Summed)
        assert self._roll is not None
        bits, length = self.spec.bits, self.spec.length
        parts: list[tuple[bytes, tuple[bytes, ...]]] = []
        for claim in self._roll.claims:
            vector = self._heard[2][claim.member].vector
            path = vectors.commit(vector, length, bits).path(chunk)
            parts.append((vectors.chunk_bytes(vector, chunk, bits), path))
        packed = self.outcome.packed
        path = vectors.commit(packed, length, bits).path(chunk)
        return Opening(chunk, tuple(parts), vectors.chunk_bytes(packed, chunk, bits), path)
