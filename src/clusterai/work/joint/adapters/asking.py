"""The requester's side: ask who would, order a share of each, sum them, and compute.

Nothing is ordered before three vaults said that they would. From then on ε is spent: a vault that drops out after its order has been paid, and another try is
another study. `Party` is a vault as the requester reaches it.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.vault.adapters.aggregation import Aggregation, NoSum, Unreachable
from clusterai.vault.adapters.thresholdckks import CannotOpen, NoOpenFhe
from clusterai.vault.core.schema import Schema
from clusterai.vault.core.secagg import joint
from clusterai.vault.core.secagg.quantise import plan
from clusterai.work.joint.adapters.noise import least_bits, own_noise
from clusterai.work.joint.adapters.threshold import FalseSum, Gone, python, summed
from clusterai.work.joint.check import said_of
from clusterai.work.joint.core.chain import Tally
from clusterai.work.joint.core.question import Wanted
from clusterai.work.joint.core.spread import half_widths, numbers
from clusterai.work.joint.spec import (
    LEAST_VAULTS,
    Again,
    Encrypt,
    Encrypted,
    Frame,
    Hello,
    Hi,
    Join,
    Joined,
    Masking,
    Meet,
    Met,
    No,
    Open,
    Opened,
    Pledge,
    Refusal,
    ShareOrder,
    Study,
    Tell,
    Told,
    Way,
    decode_reply,
)
from clusterai.work.uses import Paid

CALL_S = 60.0
PHASE_S = 60.0
ORDER_S = 300.0
STUDY_S = 3_600
A = TypeVar("A", bound=msgspec.Struct)
B = TypeVar("B")
_STEPS: Any = (Joined, Encrypted, Opened, Told)


class Lost(Exception):
    """This vault can't be asked now, or what came isn't its answer: {why}."""


class Party(Protocol):
    """A vault, as the requester reaches it. What can fail on the way there raises one of `LOST`, and nothing else does.

    Attributes:
        signer: the hot key that its listing is signed by, and its uses.
    """

    name: str
    dataset: Digest
    snapshot: Digest
    grant: Digest
    subject: Digest
    schema: Schema
    signer: Address
    network: Domain

    async def call(self, data: bytes) -> bytes:
        """Sealed on the way there and back."""
        ...

    async def order(self, order: ShareOrder, most_wei: int | None) -> Paid: ...


class VaultSaid(RuntimeError):
    """A vault refused: {code}: {detail}."""


LOST = (Lost, VaultSaid, Malformed, ConnectionError, TimeoutError)
"""What peers and links can do. Anything else is our own fault or our disk's, and ends the study with its traceback: taken for a drop-out, it
would cost ε, and nobody would hear of it."""


class NoStatistic(RuntimeError):
    """No joint statistic came of it: {why}. `dropped` names who didn't take part, and why."""

    def __init__(self, why: str, dropped: dict[str, str], charged_wei: int = 0) -> None:
        super().__init__(why)
        self.dropped, self.charged_wei = dropped, charged_wei


class Part(msgspec.Struct, frozen=True):
    """What one vault was paid, and what its log says for it."""

    name: str
    order: ShareOrder
    pledge: Pledge
    charged_wei: int
    provider: str


class Statistic(msgspec.Struct, frozen=True):
    """
    Attributes:
        values: named numbers, in the order in which they were asked for. `half`: how far off the noise has each in 95 of 100 cases.
        vaults: whose shares are in the sum. `dropped`: who else was asked, and why it isn't.
        checked: of each vault that checked the sum's transcript, what it found.
        tallies: of each vault in a sum under a key, what it signed of its share and mask.
    """

    values: dict[str, float]
    half: dict[str, float]
    found: joint.MomentsFound | joint.HistogramFound | joint.RegressionFound
    vaults: tuple[str, ...]
    parts: tuple[Part, ...]
    dropped: dict[str, str]
    checked: dict[str, str]
    study: Study
    tallies: dict[str, Tally]

    @property
    def charged_wei(self) -> int:
        return sum(it.charged_wei for it in self.parts)


class Asking:
    """One question to several vaults.

    Args:
        key: the requester's, whose the grants are.
        epsilon_micro: what each vault spends of its budget; 0 for exact sums, where every owner granted that.
    """

    def __init__(
        self,
        key: Key,
        parties: Sequence[Party],
        wanted: Wanted,
        *,
        epsilon_micro: int,
        delta_pico: int,
        by: Way = "masks",
        phase_s: float = PHASE_S,
        clock: Callable[[], float] = time.time,
        told: Callable[[str, str], None] = lambda _vault, _why: None,
        interpreter: Callable[[], str] = python,
    ) -> None:
        self._key, self._wanted, self._phase_s, self._clock = key, wanted, phase_s, clock
        self._by: Way = by
        self._epsilon, self._delta = epsilon_micro, delta_pico if epsilon_micro else 0
        self._parties = {Digest(it.subject): it for it in parties}
        self._dropped: dict[Digest, str] = {}
        self._papers: dict[Digest, bytes] = {}
        self._told, self._find_python = told, interpreter
        self._orders: dict[Digest, ShareOrder] = {}
        self._parts: dict[Digest, Part] = {}
        self._tallies: dict[str, Tally] = {}

    async def statistic(self, most_wei: int | None = None) -> Statistic:
        """
        Args:
            most_wei: the most that one vault may be paid.

        Raises:
            NoStatistic: also where fewer rows are in the sum, or seem to be under its noise, than the statistic takes.
            ValueError: so small an ε takes more noise than 64 bits hold.
        """
        if self._by == "ckks":
            await self._interpreter()
        least_bits(self._wanted.question, self._epsilon, self._delta, max(3, len(self._parties)))
        members = await self._each(list(self._parties), self._hello)
        self._enough(members, "are ready")
        study = Study(
            self._key.address,
            self._wanted.question,
            self._by,
            self._epsilon,
            self._delta,
            tuple(members),
            tuple(members.values()),
            int(self._clock()) + STUDY_S,
            secrets.token_bytes(32),
        )

        async def met(party: Party) -> None:
            await self._meet(party, study)

        async def ordered(party: Party) -> Part:
            return await self._order(party, study, most_wei)

        # All of them before the first order: where too many refuse the company, nothing is spent.
        willing = await self._each(list(members), met)
        self._enough(willing, "are willing to be summed with the others", study.quorum)
        self._parts = await self._each(list(willing), ordered)
        self._enough(self._parts, "gave their share", study.quorum)
        ordered_of = {it: members[it] for it in self._parts}
        if self._by == "ckks":
            total, inside, checked = await self._under_a_key(study, ordered_of)
        else:
            total, inside, checked = await self._masked(study, ordered_of)
        return self._computed(study, total, inside, checked)

    # --- before ---

    async def _hello(self, party: Party) -> Address:
        hello = Hello(
            party.grant, party.snapshot, self._wanted.question, self._by, self._epsilon, self._delta
        )
        hi = await ask(party, hello, Hi)
        self._papers[Digest(party.subject)] = hi.membership
        return Address(hi.member)

    async def _meet(self, party: Party, study: Study) -> None:
        papers = tuple(self._papers[Digest(it)] for it in study.subjects)
        await ask(party, Meet(party.grant, study.subjects, study.members, papers), Met)

    async def _order(self, party: Party, study: Study, most_wei: int | None) -> Part:
        order = ShareOrder(
            party.subject, party.dataset, party.snapshot, party.grant, study, bytes(65)
        ).signed(self._key, party.network)
        self._orders[Digest(party.subject)] = order
        async with asyncio.timeout(ORDER_S):
            paid = await party.order(order, most_wei)
        try:
            said = said_of(order, paid.answer)
        except ValueError as error:
            raise VaultSaid(f"its answer can't be one: {error}") from None
        if isinstance(said, Refusal):
            raise VaultSaid(f"{said.code}: {said.detail}")
        if not said.use.signed_by(party.signer, party.network):
            raise VaultSaid("the use isn't signed by the key that signs for this vault")
        return Part(party.name, order, said, paid.charged_wei, paid.provider)

    # --- the sum ---

    async def _masked(
        self, study: Study, members: dict[Digest, Address]
    ) -> tuple[joint.Integers, tuple[Digest, ...], dict[str, str]]:
        """
        Raises:
            NoStatistic.
        """
        of = {member: it for it, member in members.items()}
        question = study.question
        spec = plan(
            self._key.address,
            tuple(of),
            length=joint.length(question),
            largest=joint.largest(joint.MAX_ROWS),
            nonce=secrets.token_bytes(32),
            beacon=secrets.token_bytes(32),
            purpose=study.digest,
            expires_s=min(study.expires_s, int(self._clock() + 10 * self._phase_s) + 60),
        )
        bits = least_bits(question, study.epsilon_micro, study.delta_pico, len(of))
        spec = msgspec.structs.replace(spec, bits=bits)

        async def send(to: Address, frame: bytes) -> bytes:
            return await self._framed(of[to], study, frame)

        ways = Aggregation(self._key, send, self._phase_s, self._clock)
        try:
            summed, checks = await ways.checked_sum(spec)
        except NoSum as error:
            for member, why in {**error.failed.gone, **error.blamed}.items():
                self._drop(of[member], why)
            raise self._none(str(error)) from None
        for member, why in {**summed.gone, **summed.blamed}.items():
            self._drop(of[member], why)
        weighed = {of[it] for it in summed.transcript.weights}
        inside = tuple(it for it in self._parties if it in weighed)
        checked = {self._parties[of[who]].name: said.code for who, said in checks.items()}
        return summed.values, inside, checked

    async def _under_a_key(
        self, study: Study, members: dict[Digest, Address]
    ) -> tuple[joint.Integers, tuple[Digest, ...], dict[str, str]]:
        """Round after round, each without whoever left the one before; without noise there is one round alone.

        Raises:
            NoStatistic.
        """
        of = {member: it for it, member in members.items()}

        async def send(to: Address, call: Join | Encrypt | Open | Tell) -> Joined | Encrypted | Opened | Told:
            try:
                return await self._told_again(of[to], call, _STEPS)
            except LOST as error:
                raise Gone(to, f"{type(error).__name__}: {error}"[:300]) from None

        while len(members) >= study.quorum:
            try:
                orders = {member: self._orders[it].digest() for it, member in members.items()}
                total, tallies = await summed(send, study, orders, await self._interpreter())
            except Gone as gone:
                self._drop(of[gone.who], gone.why)
                members = {it: member for it, member in members.items() if member != gone.who}
                if not study.epsilon_micro:
                    raise self._none(f"{gone}: a share without noise goes into one sum") from None
            except (CannotOpen, FalseSum, OSError, TimeoutError) as error:
                raise self._none(str(error)) from None
            else:
                self._tallies = {
                    self._parties[it].name: tally for it, tally in zip(members, tallies, strict=True)
                }
                return total, tuple(members), {}
        raise self._none(f"{len(members)} vaults are left, and {study.quorum} must be")

    async def _interpreter(self) -> str:
        try:
            return await asyncio.to_thread(self._find_python)
        except NoOpenFhe as error:
            raise self._none(str(error)) from None

    async def _told_again(self, who: Digest, call: msgspec.Struct, kind: Any) -> Any:
        """The answer to a call about a share, also of a vault that was started anew since the order."""
        party = self._parties[who]
        try:
            return await ask(party, call, kind, self._phase_s)
        except VaultSaid as said:
            if not str(said).startswith("unknown_study"):
                raise
        await self._meet(party, self._orders[who].study)
        await ask(party, Again(self._orders[who]), Hi)
        return await ask(party, call, kind, self._phase_s)

    async def _framed(self, who: Digest, study: Study, frame: bytes) -> bytes:
        """
        Raises:
            Unreachable: it counts as dropped out.
        """
        try:
            told: Frame = await self._told_again(who, Masking(study.digest, frame), Frame)
            return told.frame
        except LOST as error:
            # Hostile or gone, it is the same.
            why = f"{type(error).__name__}: {error}"[:300]
            self._dropped.setdefault(who, why)
            raise Unreachable(why) from None

    # --- after ---

    def _computed(
        self, study: Study, total: joint.Integers, inside: tuple[Digest, ...], checked: dict[str, str]
    ) -> Statistic:
        shares = [
            own_noise(
                study.question, study.epsilon_micro, study.delta_pico, self._parties[it].schema.unit_rows
            )
            for it in inside
        ]
        variance = sum(it.variance for it in shares if it is not None)
        try:
            values = numbers(self._wanted, total)
        except joint.TooFewRows as error:
            noise = f", where noise alone moves each count by about {variance**0.5 / (1 << joint.FRACTION):.0f}: ask with more ε"
            raise self._none(f"{error}{noise if variance else ''}") from None
        return Statistic(
            values,
            half_widths(self._wanted, total, variance, study.nonce),
            joint.found(study.question, total),
            tuple(self._parties[it].name for it in inside),
            tuple(self._parts.values()),
            self._named(),
            checked,
            study,
            self._tallies,
        )

    # --- who is there ---

    async def _each(self, whom: Sequence[Digest], do: Callable[[Party], Awaitable[B]]) -> dict[Digest, B]:
        """What came of those with whom it went well; the others have dropped out."""
        done = await asyncio.gather(*(do(self._parties[who]) for who in whom), return_exceptions=True)
        good: dict[Digest, B] = {}
        for who, result in zip(whom, done, strict=True):
            if isinstance(result, LOST):
                words = str(result) if isinstance(result, VaultSaid) else f"{type(result).__name__}: {result}"
                self._drop(who, words[:300])
            elif isinstance(result, BaseException):
                raise result
            else:
                good[who] = result
        return good

    def _drop(self, who: Digest, why: str) -> None:
        self._dropped.setdefault(who, why)
        self._told(self._parties[who].name, self._dropped[who])

    def _enough(self, who: dict[Digest, Any], did: str, least: int = LEAST_VAULTS) -> None:
        if len(who) < least:
            raise self._none(f"{len(who)} of {len(self._parties)} vaults {did}, and {least} must")

    def _none(self, why: str) -> NoStatistic:
        return NoStatistic(why, self._named(), sum(it.charged_wei for it in self._parts.values()))

    def _named(self) -> dict[str, str]:
        return {self._parties[it].name: why for it, why in self._dropped.items()}


async def ask(party: Party, call: msgspec.Struct, kind: type[A], patience_s: float = CALL_S) -> A:
    """
    Raises:
        One of `LOST`.
    """
    async with asyncio.timeout(patience_s):
        try:
            reply = decode_reply(await party.call(canonical.encode(call)))
        except Malformed as error:
            raise VaultSaid(f"its answer can't be read: {error}") from None
    if isinstance(reply, No):
        raise VaultSaid(f"{reply.code}: {reply.detail}")
    if not isinstance(reply, kind):
        raise VaultSaid(f"answered {type(reply).__name__}")
    return reply


__all__ = ["Asking", "Lost", "NoStatistic", "Paid", "Part", "Party", "Statistic", "VaultSaid", "ask"]
