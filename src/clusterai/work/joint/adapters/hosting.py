"""The vault's side of joint statistics: `host(vault)` is what a node lends orders and calls to.

    submit: signature, snapshot, company, grant, question    refused here: the order is refused, nothing is owed
    then:   spend (durable) ─ its own sums ─ its own noise ─ close the use ─ the share is kept until the study expires
    calls:  the share leaves in frames of secure aggregation, or under a key that nobody holds, for a sum over the study's vaults alone

The share is a function of data, order and noise key. So whoever asks for the same order again gets the same share, also from a vault that was killed in
between (`Again`), and spends nothing; a share without noise goes into one sum only, and is gone with its vault.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.vaults import Operation, SignedUse, subject
from clusterai.vault.adapters.aggregation import Declined, SumDesk
from clusterai.vault.adapters.hosting import Vault
from clusterai.vault.core.secagg import joint
from clusterai.vault.core.secagg.member import Contribution, Terms
from clusterai.vault.core.secagg.messages import Spec
from clusterai.vault.core.terms import Denied
from clusterai.work.calls import Frame
from clusterai.work.engine import Stats, Unfit
from clusterai.work.hosting import Refused, Taken, answered, member_key
from clusterai.work.joint.adapters import threshold
from clusterai.work.joint.adapters.noise import (
    MOST_UNIT_ROWS,
    SALT,
    least_bits,
    mask,
    needed,
    own_noise,
    pledged,
    share_of,
)
from clusterai.work.joint.adapters.threshold import Given, ThresholdDesk
from clusterai.work.joint.core.chain import round_of
from clusterai.work.joint.spec import (
    KIND_NAME,
    LEAST_VAULTS,
    Again,
    Encrypt,
    Hello,
    Hi,
    Join,
    Masking,
    Meet,
    Met,
    Open,
    Pledge,
    Question,
    Refusal,
    Said,
    ShareOrder,
    Study,
    Tell,
    decode_call,
)
from clusterai.work.streams import QueueStream

log: structlog.stdlib.BoundLogger = structlog.get_logger("work.joint")

WAITING = 8
MOST_SHARES = 256
"""Kept at once; the oldest goes first, and a share with noise can be made again."""
LONGEST_S = 86_400
MOST_MET = 256
"""Companies that were found good since the start; the oldest goes first."""


class Kept(msgspec.Struct):
    """One study's share, until it expires."""

    study: Study
    order: Digest
    values: joint.Integers
    sum: Digest | None = None
    """Of the one sum that a share without noise went into."""


class Shares:
    """The service of one vault."""

    def __init__(
        self,
        vault: Vault,
        clock: Callable[[], float] = time.time,
        interpreter: Callable[[], str] = threshold.python,
    ) -> None:
        """
        Args:
            interpreter: finds the Python that has OpenFHE; raises `NoOpenFhe`.
        """
        self.model: bytes = subject(vault.dataset, KIND_NAME)
        self.engine = self
        self._vault, self._clock = vault, clock
        self._key = member_key(KIND_NAME, vault.key, vault.dataset)
        self._sums = SumDesk(self._key, self._offered, Terms(least_members=LEAST_VAULTS), clock)
        self._threshold = ThresholdDesk(self._key, clock, interpreter)
        self._kept: OrderedDict[Digest, Kept] = OrderedDict()
        self._met: OrderedDict[Digest, None] = OrderedDict()
        self._turn = asyncio.Lock()
        self._taken = Taken(WAITING)

    @property
    def member(self) -> Address:
        """Whose signature stands under what this vault says in sums."""
        return self._key.address

    # --- the engine: orders ---

    def submit(self, order: ShareOrder, /) -> QueueStream:
        """
        Raises:
            Busy, Unfit: with the vault's reason.
        """
        self._taken.room()
        try:
            self._admit(order)
        except Denied as error:
            raise Unfit(str(error)) from None
        return self._taken.take(lambda: self._answer(order))

    def stats(self) -> Stats:
        return self._taken.stats()

    async def close(self) -> None:
        await self._taken.close()
        await self._threshold.close()

    def _admit(self, order: ShareOrder) -> None:
        """
        Raises:
            Denied.
        """
        study, vault = order.study, self._vault
        if order.model != self.model or order.dataset != vault.dataset or not order.is_signed(vault.network):
            raise Denied(
                "signature", "sign the order by the key that the grant names, for this vault and network"
            )
        if self.model not in study.subjects or (
            study.members[study.subjects.index(self.model)] != self.member
        ):
            raise Denied("company", "the study doesn't name this vault with the key that it signs sums with")
        if vault.cohorts.matters and company(study.subjects, study.members) not in self._met:
            raise Denied(
                "cohort", "this vault wasn't told who the study's others are, or it was started anew"
            )
        if not self._clock() < study.expires_s <= self._clock() + LONGEST_S:
            raise Denied("expired", "the study is over, or lasts longer than a day: order another")
        self._allowed(
            Digest(order.grant), Address(order.requester), Digest(order.snapshot), study.question,
            study.epsilon_micro, study.delta_pico,
        )  # fmt: skip
        kept = self._kept.get(study.digest)
        if kept is not None and kept.order != order.digest():
            # The share's noise is of the first order's seed: an audit of the second would find other noise.
            raise Denied("twice", "this study was ordered already, by another order: name a new one")

    def _allowed(
        self,
        grant: Digest,
        who: Address,
        snapshot: Digest,
        question: Question,
        epsilon_micro: int,
        delta_pico: int,
    ) -> None:
        """
        Raises:
            Denied.
        """
        vault = self._vault
        if snapshot != vault.snapshot:
            raise Denied("other_snapshot", f"the data is 0x{vault.snapshot.hex()} now; ask that")
        permit = vault.permit(grant, who, Operation.JOINT, ZERO_DIGEST)
        if not epsilon_micro and permit.epsilon_micro:
            raise Denied("noise", "this grant is for noised sums: ask with an ε")
        if bool(epsilon_micro) != bool(delta_pico):
            raise Denied("noise", "ε and δ come together: Gaussian noise needs both")
        schema = vault.schema
        if epsilon_micro and schema.unit_rows > MOST_UNIT_ROWS:
            raise Denied("unit", f"a person has more than {MOST_UNIT_ROWS} rows here")
        try:
            joint.check(question)
            own_noise(question, epsilon_micro, delta_pico, schema.unit_rows)
        except ValueError as error:
            raise Denied("range", str(error)) from None
        columns = {it.name: it for it in schema.columns}
        for range_ in joint.ranges(question):
            column = columns.get(range_.column)
            if column is None or column.kind not in ("int", "float", "bool") or column.name == schema.unit:
                raise Denied("column", f"{range_.column[:60]} is no column with numbers here")

    async def _answer(self, order: ShareOrder) -> bytes:
        async with self._turn:
            return canonical.encode(await self._said(order))

    async def _said(self, order: ShareOrder) -> Said:
        name = order.digest()
        study = order.study
        try:
            # Again: while it waited, the grant may have ended.
            self._admit(order)
            spent = await asyncio.to_thread(
                self._vault.spend, Digest(order.grant), name, study.epsilon_micro, study.delta_pico
            )
            if spent.closed and not study.epsilon_micro and study.digest not in self._kept:
                # What it went into isn't known any more: a second sum with one vault less would tell that vault's part.
                raise Denied("once", "a share without noise isn't made again: order another study")
            return Pledge(name, await self._made(order))
        except Denied as error:
            return Refusal(name, error.code[:40], error.detail[:1_000])
        except Exception as error:
            # Whatever broke may have to do with the data: its words stay here.
            log.exception("share_failed", order=name.hex(), error=type(error).__name__)
            return Refusal(name, "failed", "the vault couldn't compute it; its ε is spent: ask its owner")

    async def _made(self, order: ShareOrder) -> SignedUse:
        """Compute the share, close its use, keep it.

        Raises:
            Denied: this order was never spent for, or gave another share.
        """
        name, study = order.digest(), order.study
        kept = self._kept.get(study.digest)
        values = await asyncio.to_thread(self._values, order) if kept is None else kept.values
        bound = pledged(values, self._vault.noise_seed(name, SALT))
        use = await asyncio.to_thread(self._vault.used, name, bound)
        if kept is None:
            self._keep(study, name, values)
        return use

    def _keep(self, study: Study, order: Digest, values: joint.Integers) -> None:
        now_s = self._clock()
        for old in [it for it, kept in self._kept.items() if kept.study.expires_s < now_s]:
            del self._kept[old]
        while len(self._kept) >= MOST_SHARES:
            self._kept.popitem(last=False)
        self._kept[study.digest] = Kept(study, order, values)

    def _values(self, order: ShareOrder) -> joint.Integers:
        study, vault = order.study, self._vault
        columns = vault.columns(needed(study.question, vault.schema))
        seed = vault.noise_seed(order.digest(), Digest(study.nonce))
        return share_of(study.question, study.epsilon_micro, study.delta_pico, vault.schema, columns, seed)

    # --- calls ---

    async def answer(self, sender: Address, body: bytes) -> bytes:
        """
        Raises:
            Denied: the call's seal isn't right.
        """
        return await answered(self._vault, sender, body, decode_call, self._answered)

    async def _answered(self, who: Address, call: Any) -> msgspec.Struct:
        """
        Raises:
            Denied, Refused.
        """
        match call:
            case Hello(grant, snapshot, question, by, epsilon_micro, delta_pico):
                if by == "ckks":
                    await self._threshold.ready()
                self._allowed(Digest(grant), who, Digest(snapshot), question, epsilon_micro, delta_pico)
                return self._hi()
            case Meet():
                return await self._meet(who, call)
            case Again(order):
                return await self._again(who, order)
            case Masking(study, frame):
                kept = self._share(who, study)
                if kept.study.by != "masks":
                    raise Refused("way", "this study isn't summed under masks")
                return Frame(await self._sums.answer(Address(kept.study.requester), frame))
            case Join() | Encrypt() | Open() | Tell():
                kept = self._share(who, call.study)
                if kept.study.by != "ckks":
                    raise Refused("way", "this study isn't summed under a key")
                self._once(kept, round_of(kept.study.digest, call.cohort))
                given = Given(
                    kept.study,
                    kept.order,
                    kept.values,
                    lambda made: mask(self._vault.noise_seed(kept.order, made)),
                )
                return await self._threshold.answer(given, call)
            case _:
                raise AssertionError(call)

    async def _again(self, who: Address, order: ShareOrder) -> Hi:
        """Make a share once more that a restart took; only where the log says that it was made, and is the same."""
        if order.requester != who:
            raise Refused("requester", "an order is its requester's")
        if not order.study.epsilon_micro:
            raise Refused("once", "a share without noise leaves once, and isn't made again: order another")
        self._admit(order)
        async with self._turn:
            await self._made(order)
        return self._hi()

    def _hi(self) -> Hi:
        return Hi(self.member, self._vault.cohorts.membership(self.member))

    async def _meet(self, who: Address, call: Meet) -> Met:
        """
        Raises:
            Denied: one of them isn't a vault of an owner of its own.
        """
        self._vault.permit(Digest(call.grant), who, Operation.JOINT, ZERO_DIGEST)
        if len(call.subjects) != len(call.members):
            raise Denied("cohort", "each vault has one key")
        await self._vault.cohorts.check(call.memberships, call.members, call.subjects, KIND_NAME)
        self._met[company(call.subjects, call.members)] = None
        while len(self._met) > MOST_MET:
            self._met.popitem(last=False)
        return Met()

    def _share(self, who: Address, study: bytes) -> Kept:
        kept = self._kept.get(Digest(study))
        if kept is None or kept.study.requester != who or kept.study.expires_s < self._clock():
            raise Refused("unknown_study", "no share of such a study of yours is here: order it")
        return kept

    async def _offered(self, spec: Spec, server: Address) -> Contribution:
        """What goes into a sum under masks.

        Raises:
            Declined.
        """
        kept = self._kept.get(Digest(spec.purpose))
        if kept is None or kept.study.requester != server:
            raise Declined("unknown", "no share of this vault's has this purpose")
        study = kept.study
        try:
            bits = least_bits(study.question, study.epsilon_micro, study.delta_pico, len(spec.cohort))
        except ValueError as unfit:
            raise Declined("noise", str(unfit)) from None
        if spec.length != joint.length(study.question) or spec.bits < bits:
            raise Declined("shape", "the sum is not of this question's length and modulus")
        if spec.groups != 1 or not set(spec.cohort) <= set(study.members) or len(spec.cohort) < study.quorum:
            raise Declined(
                "company", "the sum is over others than the study's vaults, or over too few of them"
            )
        try:
            self._once(kept, spec.round())
        except Refused as refused:
            raise Declined(refused.code, str(refused)) from None
        # Noise of its own hides a share among few, too; an exact one is hidden by the others alone.
        return Contribution(kept.values, least=0 if study.epsilon_micro else LEAST_VAULTS)

    def _once(self, kept: Kept, sum_: Digest) -> None:
        """
        Raises:
            Refused: a second sum of a share without noise: with one vault less it would tell that vault's part.
        """
        if kept.study.epsilon_micro:
            return
        if kept.sum not in (None, sum_):
            raise Refused("twice", "this share went into another sum already")
        kept.sum = sum_


def company(subjects: Sequence[bytes], members: Sequence[bytes]) -> Digest:
    return canonical.content_digest(b"clusterai joint company" + b"".join((*subjects, *members)))


def host(vault: Vault) -> Shares:
    """What `Kind.hosts` names."""
    return Shares(vault)
