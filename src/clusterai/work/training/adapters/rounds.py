"""One round at all vaults: bring the message, order, and get the sum; whoever fails on the way has dropped out.

A third may drop out in all. A vault that was started anew is told of the run again, and goes on where it was. A round that fails is not asked
again: the campaign orders another, which is paid in ε like any. What counts as failing is in `parties.py`. A round that broke off with its requester is gone through again, with the
same words: orders are answered as they were, and the journal of its secure sum (`Sums`) knows who has said what.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import SignedUse
from clusterai.runtime.machine import Journal
from clusterai.vault.adapters.aggregation import Aggregation, NoSum, Unreachable
from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.messages import Spec
from clusterai.vault.core.secagg.proof import Proof
from clusterai.vault.core.secagg.transcript import transcript_digest
from clusterai.work.training.adapters.hosting import purpose
from clusterai.work.training.adapters.parties import CALL_S, GONE, A, Lost, Paid, Party, VaultSaid, ask
from clusterai.work.training.check import unbound
from clusterai.work.training.core import lineage, patience, vector
from clusterai.work.training.spec import (
    LEAST_GROUP,
    Begin,
    Done,
    End,
    Frame,
    Good,
    Masking,
    Plain,
    Put,
    Round,
    Run,
    Sorry,
    Vector,
    Why,
    Words,
    commitment,
    decode_done,
)

PHASE_S = 120.0
ROUND_S = 3600.0
END_S = 30.0
MOST_ASKED = 4
"""How often one order is sent to a vault that comes and goes."""
MOST_SUMS = 3
"""Of one round, each over the same members' same vectors."""
UNKNOWN = "unknown_run"
FINAL = frozenset({"too_dear", "insufficient_credit"})
"""What a gateway says that asking again doesn't change."""


class Sums(Protocol):
    """Where the requester keeps how its secure sums stand, by the number of their round."""

    def specs(self, number: int) -> tuple[Spec, ...]:
        """Of the sums that were begun for this round, one of each group."""
        ...

    def begin(self, number: int, specs: tuple[Spec, ...]) -> None:
        """Durable when it returns; the last ones, which have come to nothing, are thrown away."""
        ...

    def journal(self, number: int, group: int) -> Journal: ...


class RoundFailed(RuntimeError):
    """No sum came of this round: {why}. `parts` were done, and paid for, all the same. After a `final` one another would fail the same way."""

    def __init__(self, why: str, parts: tuple[lineage.Part, ...] = (), *, final: bool = False) -> None:
        super().__init__(why)
        self.parts, self.final = parts, final


class SumFailed(RoundFailed):
    """No sum came: {why}. Another may, without those who are to blame."""

    def __init__(
        self, why: str, parts: tuple[lineage.Part, ...] = (), blamed: tuple[Digest, ...] = ()
    ) -> None:
        super().__init__(why, parts)
        self.blamed = blamed


class GroupSum(msgspec.Struct, frozen=True):
    """
    Attributes:
        members: those whose vectors are in it, as their parties' subjects.
    """

    total: Any
    members: tuple[Digest, ...]
    transcript: bytes = b""


class Sum(msgspec.Struct, frozen=True):
    """A round's: one sum, or one of each group that came to one."""

    groups: tuple[GroupSum, ...]
    dones: dict[Digest, Done]
    parts: tuple[lineage.Part, ...]
    dropped: dict[str, str]

    @property
    def total(self) -> vector.Whole:
        """Of all groups together."""
        return np.stack([group.total for group in self.groups]).sum(axis=0)

    @property
    def members(self) -> tuple[Digest, ...]:
        return tuple(who for group in self.groups for who in group.members)


class Rounds:
    """Performs the rounds of one run."""

    def __init__(
        self,
        run: Run,
        key: Key,
        parties: Sequence[Party],
        *,
        round_s: float = ROUND_S,
        phase_s: float = PHASE_S,
        told: Callable[[dict[str, Any]], None] = lambda _: None,
        sums: Sums | None = None,
        keep: Callable[[int, int, bytes], None] | None = None,
    ) -> None:
        """
        Args:
            keep: gets of each sum its round, its group, and what proves it to others.
        """
        self._keep = keep
        self.run = run
        self._bundle = b""
        self._memberships: tuple[bytes, ...] = ()
        self._sums = sums
        self._key = key
        self._parties = {Digest(party.subject): party for party in parties}
        self._member = {
            Digest(who): Address(member) for who, member in zip(run.subjects, run.members, strict=True)
        }
        self._of = {member: who for who, member in self._member.items()}
        self._round_s, self._phase_s, self._told = round_s, phase_s, told
        self._took_s: dict[Digest, float] = {}

    async def begin(self, bundle: bytes, memberships: Sequence[bytes]) -> dict[Digest, str]:
        """Tell every vault of the run; those that can't be reached, or refuse, with why."""
        self._bundle, self._memberships = bundle, tuple(memberships)
        return await self._each(list(self._parties), self._begun, {})

    async def end(self, party: Party) -> None:
        """Let a vault forget the run; one that was started anew must hear of it to forget what is on its disk."""
        await self._asked(party, End(self.run.digest), Good, END_S)

    async def _begun(self, party: Party) -> Good:
        return await ask(party, Begin(self.run, party.grant, self._bundle, self._memberships), Good)

    async def _asked(
        self, party: Party, call: msgspec.Struct, kind: type[A], patience_s: float = CALL_S
    ) -> A:
        """As `ask`, of a vault that may have been started anew since it was told of the run."""
        try:
            return await ask(party, call, kind, patience_s)
        except VaultSaid as said:
            if said.code != UNKNOWN:
                raise
        self._told({"event": "back", "vault": party.name})
        await self._begun(party)
        return await ask(party, call, kind, patience_s)

    async def _ordered(self, party: Party, request: Round, message: bytes, share: int | None) -> Paid:
        """Its answer; asked again where the vault died with the order, which costs nothing: it says the same again."""
        for tried in range(MOST_ASKED):
            try:
                if tried:
                    await self._asked(party, Put(self.run.digest, message), Good)
                return await party.order(request, share)
            except GONE as error:
                if tried + 1 == MOST_ASKED or (isinstance(error, Lost) and error.code in FINAL):
                    raise
                self._told({"event": "again", "vault": party.name, "why": str(error)[:200]})
        raise AssertionError("it was answered, or raised")

    async def perform(
        self,
        number: int,
        message: bytes,
        type_: str,
        group: str,
        among: Sequence[Digest],
        most_wei: int | None,
        most_micro: int = 0,
    ) -> Sum:
        """
        Raises:
            RoundFailed.
        """
        dropped: dict[Digest, str] = {}
        alive = list(among)
        put = Put(self.run.digest, message)
        dropped |= await self._each(alive, lambda party: self._asked(party, put, Good), {})
        least = len(among) - len(among) // 3
        if len(alive) - len(dropped) < least:
            # Nothing is ordered, and no ε spent, where no sum can come of it.
            there = len(alive) - len(dropped)
            raise RoundFailed(
                f"{there} of {len(among)} vaults are there, {least} must: {self._named(dropped)}"
            )
        dones: dict[Digest, Done] = {}
        paid: dict[Digest, Paid] = {}
        refused: list[str] = []
        ordered_as: dict[Digest, Digest] = {}
        share = None if most_wei is None else most_wei // max(1, len(alive))
        waiting = Waiting(least, self._round_s, self._took_s)

        async def ordered(party: Party) -> Good:
            request = self.order(party, number, message, type_, group, most_micro)
            try:
                got = await waiting.for_(Digest(party.subject), self._ordered(party, request, message, share))
            except Lost as error:
                if error.code in FINAL:
                    refused.append(party.name)
                raise
            paid[Digest(party.subject)], ordered_as[Digest(party.subject)] = got, request.digest
            done = decode_done(got.answer)
            if done.order != request.digest:
                raise VaultSaid("its answer is of another order")
            if isinstance(done, Sorry):
                words = await ask(party, Why(self.run.digest, number), Words)
                raise VaultSaid(f"{done.code}: {done.detail} {words.text}".strip())
            if (why := unbound(request, done)) is not None:
                raise VaultSaid(why)
            # Nobody else looks at it: without a signature that holds, a vault that left this use out of its log can't be convicted.
            if not canonical.decode(done.use, SignedUse).signed_by(party.signer, party.network):
                raise VaultSaid("the use isn't signed by the key that signs for this vault")
            dones[Digest(party.subject)] = done
            waiting.answered(Digest(party.subject))
            self._told({"event": "trained", "vault": party.name, "epsilon_micro": done.epsilon_micro})
            return Good()

        dropped |= await self._each([who for who in alive if who not in dropped], ordered, dropped)
        parts = tuple(
            lineage.Part(
                who,
                done.order,
                done.commitment,
                done.epsilon_micro,
                done.use,
                paid[who].charged_wei,
                paid[who].receipt,
            )
            for who, done in dones.items()
        )
        # Who lied, or failed, and was paid all the same: it is in no sum, and its price is in the run's.
        parts += tuple(
            lineage.Part(who, ordered_as[who], b"", 0, b"", got.charged_wei, got.receipt)
            for who, got in paid.items()
            if who not in dones and got.charged_wei
        )
        # Lengths and names of metrics are told by vaults: those that say otherwise than most are left out.
        shape = _most([(done.length, done.metrics) for done in dones.values()])
        for who, done in list(dones.items()):
            if (done.length, done.metrics) != shape:
                dropped[who] = "it answers with another shape than the others"
                del dones[who]
        if len(dones) < least or shape is None:
            raise RoundFailed(
                f"{len(dones)} of {len(among)} vaults answered, {least} must: {self._named(dropped)}",
                parts,
                final=len(among) - len(refused) < least,
            )
        try:
            if not self.run.masked:
                groups = (await self._plain(number, dones, dropped),)
            else:
                groups = await self._grouped(number, shape[0], among, dones, dropped)
        except RoundFailed as failed:
            raise RoundFailed(str(failed), parts) from None
        inside = sum(len(group.members) for group in groups)
        if inside < least:
            raise RoundFailed(
                f"{inside} of {len(among)} vectors came, {least} must: {self._named(dropped)}", parts
            )
        return Sum(groups, dones, parts, self._named(dropped))

    def order(
        self, party: Party, number: int, message: bytes, type_: str, group: str, most_micro: int
    ) -> Round:
        unsigned = Round(
            party.subject,
            party.grant,
            self.run.digest,
            number,
            type_,
            group[:32],
            canonical.content_digest(message),
            most_micro,
            self._key.address,
            bytes(65),
        )
        return msgspec.structs.replace(unsigned, signature=self._key.sign(unsigned.signing_digest()))

    async def _plain(self, number: int, dones: dict[Digest, Done], dropped: dict[Digest, str]) -> GroupSum:
        vectors: dict[Digest, vector.Whole] = {}

        async def fetched(party: Party) -> Vector:
            got = await self._asked(party, Plain(self.run.digest, number), Vector)
            done = dones[Digest(party.subject)]
            if commitment(got.salt, got.values) != done.commitment or len(got.values) != 8 * done.length:
                raise VaultSaid("its vector isn't the one that it committed to")
            vectors[Digest(party.subject)] = np.frombuffer(got.values, "<i8").astype(np.int64)
            return got

        dropped |= await self._each(list(dones), fetched, dropped)
        empty = np.zeros(next(iter(dones.values())).length, np.int64)
        return GroupSum(sum(vectors.values(), empty), tuple(vectors))

    def _spec(
        self,
        number: int,
        length: int,
        among: Sequence[Digest],
        beacon: bytes,
        groups: int,
        group: int,
    ) -> Spec:
        cohort = tuple(sorted(self._member[who] for who in among))
        count = len(graph.groups(cohort, beacon, groups)[group])
        degree, threshold = graph.sparse(count, graph.colluders_tolerated(count))
        threshold = min(threshold, count - 1) if not degree else threshold
        return Spec(
            server=self._key.address,
            nonce=secrets.token_bytes(32),
            cohort=cohort,
            beacon=beacon,
            groups=groups,
            group=group,
            length=length,
            bits=64,
            degree=degree,
            threshold=threshold,
            purpose=purpose(self.run.digest, number),
            expires_s=int(time.time()) + int(10 * self._phase_s) + 60,
        )

    async def _grouped(
        self,
        number: int,
        length: int,
        among: Sequence[Digest],
        dones: dict[Digest, Done],
        dropped: dict[Digest, str],
    ) -> tuple[GroupSum, ...]:
        """One sum over all who were asked; or those who trained, drawn into groups anew, of which one that comes to nothing is left out.

        Raises:
            RoundFailed: no sum came of any.
        """
        specs = () if self._sums is None else self._sums.specs(number)
        specs = specs or self._begun_sums(number, length, among, dones)
        if len(specs) == 1:
            return (await self._single(number, specs[0], among, dones, dropped),)
        came = await asyncio.gather(
            *(self._masked(number, spec, dones, dropped) for spec in specs), return_exceptions=True
        )
        sums: list[GroupSum] = []
        for spec, result in zip(specs, came, strict=True):
            if isinstance(result, GroupSum):
                sums.append(result)
            elif isinstance(result, RoundFailed):
                for member in graph.members(spec):
                    dropped.setdefault(self._of[member], str(result)[:300])
            else:
                raise result
        return tuple(sums)

    def _begun_sums(
        self, number: int, length: int, among: Sequence[Digest], dones: dict[Digest, Done]
    ) -> tuple[Spec, ...]:
        beacon = drawn()
        count = max(1, min(self.run.groups, len(dones) // LEAST_GROUP))
        cohort = list(dones) if self.run.groups > 1 else among
        specs = tuple(self._spec(number, length, cohort, beacon, count, at) for at in range(count))
        if self._sums is not None:
            self._sums.begin(number, specs)
        return specs

    async def _single(
        self,
        number: int,
        spec: Spec,
        among: Sequence[Digest],
        dones: dict[Digest, Done],
        dropped: dict[Digest, str],
    ) -> GroupSum:
        """Begun again where too many died in the middle of it: what they put in is the same, so it costs nothing (`core/once.py`).

        Raises:
            RoundFailed.
        """
        there = dict(dones)
        for tried in range(MOST_SUMS):
            out = dict(dropped)
            try:
                summed = await self._masked(number, spec, there, out)
            except SumFailed as failed:
                there = {who: done for who, done in there.items() if who not in failed.blamed}
                dropped |= {who: out[who] for who in failed.blamed}
                if tried + 1 == MOST_SUMS:
                    dropped |= out
                    raise
                self._told({"event": "summing again", "number": number, "why": str(failed)[:300]})
                [spec] = self._begun_sums(number, spec.length, among, dones)
            else:
                dropped |= out
                return summed
        raise AssertionError("it was summed, or raised")

    async def _masked(
        self, number: int, spec: Spec, dones: dict[Digest, Done], dropped: dict[Digest, str]
    ) -> GroupSum:
        """
        Raises:
            SumFailed: no sum came of this group.
        """
        gone = {
            Address(member): dropped.get(self._of[Address(member)], "it didn't train")
            for member in spec.cohort
            if self._of[Address(member)] not in dones
        }

        async def send(to: Address, frame: bytes) -> bytes:
            if to in gone:
                raise Unreachable(gone[to])
            try:
                call = Masking(self.run.digest, number, frame)
                return (await self._asked(self._parties[self._of[to]], call, Frame, self._phase_s)).frame
            except GONE as error:
                # Hostile or gone, it is the same: it has dropped out.
                why = f"{type(error).__name__}: {error}"[:300]
                dropped.setdefault(self._of[to], why)
                raise Unreachable(why) from None

        try:
            journal = None if self._sums is None else self._sums.journal(number, spec.group)

            def keep(proof: Proof) -> None:
                if self._keep is not None:
                    self._keep(number, spec.group, canonical.encode(proof))

            ways = Aggregation(self._key, send, self._phase_s)
            summed, checks = await ways.checked_sum(spec, journal, keep)
        except NoSum as error:
            blamed = {self._of[Address(member)]: why for member, why in error.blamed.items()}
            dropped |= blamed
            raise SumFailed(f"{error} {self._named(dropped)}", blamed=tuple(blamed)) from None
        for member, why in summed.blamed.items():
            dropped.setdefault(self._of[member], why)
        members = graph.members(spec)
        inside = tuple(self._of[members[claim.member]] for claim in summed.transcript.roll.claims)
        found = {self._parties[self._of[member]].name: told.code for member, told in checks.items()}
        self._told({"event": "checked", "number": number, "found": found})
        return GroupSum(summed.values, inside, transcript_digest(summed.transcript))

    async def _each(
        self,
        whom: Sequence[Digest],
        do: Callable[[Party], Awaitable[Any]],
        gone: dict[Digest, str],
    ) -> dict[Digest, str]:
        """Who failed at it, with why."""
        asked = [who for who in whom if who not in gone]
        done = await asyncio.gather(*(do(self._parties[who]) for who in asked), return_exceptions=True)
        failed: dict[Digest, str] = {}
        for who, result in zip(asked, done, strict=True):
            if isinstance(result, GONE):
                failed[who] = f"{type(result).__name__}: {result}"[:300]
                self._told({"event": "dropped", "vault": self._parties[who].name, "why": failed[who]})
            elif isinstance(result, BaseException):
                raise result
        return failed

    def _named(self, dropped: dict[Digest, str]) -> dict[str, str]:
        return {self._parties[who].name: why for who, why in dropped.items()}


class Waiting:
    """One round's orders under way: each as long as `core/patience.py` says."""

    def __init__(self, quorum: int, longest_s: float, took_s: dict[Digest, float]) -> None:
        """
        Args:
            took_s: the longest of each vault in this run, kept by the caller.
        """
        self._quorum, self._longest_s, self._took_s = quorum, longest_s, took_s
        self._limits: dict[Digest, asyncio.Timeout] = {}
        self._answered_s: list[float] = []
        self._began_s = asyncio.get_running_loop().time()

    async def for_(self, who: Digest, answer: Awaitable[Paid]) -> Paid:
        """
        Raises:
            Lost: it took too long.
            Whatever the answer does.
        """
        limit = self._limits[who] = asyncio.timeout_at(self._until(who))
        try:
            async with limit:
                return await answer
        except TimeoutError:
            if not limit.expired():
                raise
            raise Lost(f"no answer in {self._now_s():.0f} s") from None
        finally:
            del self._limits[who]

    def answered(self, who: Digest) -> None:
        """It trained: the others are waited for no longer than that allows."""
        took_s = self._now_s()
        self._took_s[who] = max(took_s, self._took_s.get(who, 0.0))
        self._answered_s.append(took_s)
        for other, limit in self._limits.items():
            if not limit.expired():
                limit.reschedule(self._until(other))

    def _until(self, who: Digest) -> float:
        own_s = self._took_s.get(who, 0.0)
        return self._began_s + patience.wait_s(self._answered_s, self._quorum, self._longest_s, own_s)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time() - self._began_s


def drawn() -> bytes:
    """What deals a round's vaults into groups."""
    return secrets.token_bytes(32)


def _most(shapes: list[tuple[int, tuple[str, ...]]]) -> tuple[int, tuple[str, ...]] | None:
    """The one that most say; the first of equals."""
    return max(shapes, key=shapes.count) if shapes else None


__all__ = ["RoundFailed", "Rounds", "Sum"]
