"""Joint statistics over several vaults: operation 6 of a grant, on both ends, over whatever carries bytes.

    requester                              each vault
    Ask(grant, question, ε, δ)     ─────>  permitted? columns there?            <───── Ready | Refused
    a round of secure aggregation  ─────>  charges ε, adds its noise, masks
    the statistic of the sum

What ε protects is a person: the schema's privacy unit, of whose rows the first `unit_rows` count.
A vault charges its budget once for each round that it gives a vector to, before it does, by the round's digest.

Whom the cohort holds is the requester's choice, and addresses cost nothing: members of its own would add no noise, and tell it
what all others sum to. So a vault counts on the noise of those members alone that `known` vouches for (registered owners, say);
by default on nobody's but its own, and then its own noise is all that ε needs. With ε = 0, which an owner must have granted,
the sum is exact, and a cohort of one vault among strangers hides nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from clusterai.protocol.canonical import Malformed, decode, digest, encode
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.vault.adapters.aggregation import Aggregation, Declined, NoSum, SumDesk, Unreachable
from clusterai.vault.adapters.noising import noised, rho_for
from clusterai.vault.core.schema import Schema
from clusterai.vault.core.secagg import graph, joint
from clusterai.vault.core.secagg.collector import Failed, Summed
from clusterai.vault.core.secagg.member import Contribution, Terms
from clusterai.vault.core.secagg.messages import Bytes20, Bytes32, Refused, Spec
from clusterai.vault.core.secagg.noise import Share, share
from clusterai.vault.core.secagg.quantise import modulus_bits, plan
from clusterai.vault.core.terms import Denied

OPERATION = 6
MAX_ASK_BYTES = 64 * 1024
MAX_QUESTIONS = 256
PICO = 10**12


class Ask(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What a requester wants to sum, under which grant, at which price in privacy."""

    grant: Bytes32
    question: joint.Moments | joint.Histogram | joint.Regression
    epsilon_micro: Annotated[int, Meta(ge=0, le=10**9)]
    delta_pico: Annotated[int, Meta(ge=0, lt=PICO)]

    def purpose(self) -> Digest:
        """The same for all vaults of one question, whatever their grants."""
        return digest(msgspec.structs.replace(self, grant=bytes(32)))


class Ready(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    purpose: Bytes32
    member: Bytes20
    """The address of the key with which this vault signs in sums."""


_REPLY: Any = Ready | Refused


class Vault(Protocol):
    """What of `vault.adapters.hosting.Vault` is used here."""

    @property
    def schema(self) -> Schema: ...

    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest) -> Any: ...

    def spend(self, grant: Digest, order: Digest, epsilon_micro: int, delta_pico: int = 0) -> Any: ...

    def used(self, order: Digest, result: Digest) -> Any: ...

    def columns(self, names: Sequence[str]) -> Mapping[str, Any]: ...


def noise_share(ask: Ask, members: int, counted: int, unit_rows: int = 1) -> Share | None:
    """Each vault's noise, when `counted` of the members are believed to add theirs; None without ε."""
    if ask.epsilon_micro == 0:
        return None
    rho = rho_for(ask.epsilon_micro / 10**6, ask.delta_pico / PICO)
    least = max(1, min(graph.quorum(members), counted))
    return share(rho, joint.sensitivity(ask.question, unit_rows), joint.length(ask.question), least)


MOST_UNIT_ROWS = 1000


def least_bits(ask: Ask, members: int) -> int:
    """Of the modulus: rows without end, and the noise of everyone at its largest."""
    own = noise_share(ask, members, 1, MOST_UNIT_ROWS)
    return modulus_bits(members, joint.largest(joint.MAX_ROWS) + (0 if own is None else own.margin(members)))


class JointDesk:
    """A vault's end. `answer` is given bodies whose signer is known."""

    def __init__(
        self,
        vault: Vault,
        key: Key,
        terms: Terms | None = None,
        known: Callable[[tuple[Address, ...]], int] = lambda _: 1,
        **more: Any,
    ) -> None:
        self._vault, self._known, self._member = vault, known, key.address
        self._asked: dict[tuple[Address, Digest], Ask] = {}
        self._sums = SumDesk(key, self._offer, terms, **more)

    async def answer(self, signer: Address, body: bytes) -> bytes:
        try:
            ask = decode(body, Ask, MAX_ASK_BYTES)
        except Malformed:
            return await self._sums.answer(signer, body)
        try:
            self._check(signer, ask)
        except Declined as declined:
            return encode(Refused(ask.purpose(), declined.code[:40], declined.detail[:400]))
        self._asked.pop((signer, ask.purpose()), None)
        self._asked[signer, ask.purpose()] = ask
        while len(self._asked) > MAX_QUESTIONS:
            del self._asked[next(iter(self._asked))]
        return encode(Ready(ask.purpose(), self._member))

    def _check(self, signer: Address, ask: Ask) -> None:
        """Raises Declined."""
        try:
            joint.check(ask.question)
            permit = self._vault.permit(Digest(ask.grant), signer, OPERATION, ZERO_DIGEST)
        except joint.BadRange as bad:
            raise Declined("range", str(bad)) from None
        except Denied as denied:
            raise Declined(str(denied.code), denied.detail) from None
        if ask.epsilon_micro == 0 and permit.epsilon_micro != 0:
            raise Declined("noise", "this grant is for noised sums: ask with an epsilon")
        if ask.epsilon_micro and not ask.delta_pico:
            raise Declined("noise", "an epsilon of Gaussian noise needs a delta above zero")
        if ask.epsilon_micro and self._vault.schema.unit_rows > MOST_UNIT_ROWS:
            raise Declined("unit", f"a person has more than {MOST_UNIT_ROWS} rows here")

    async def _offer(self, spec: Spec, server: Address) -> Contribution:
        ask = self._asked.get((server, Digest(spec.purpose)))
        if ask is None:
            raise Declined("question", "ask first: no question of this purpose is known here")
        members = graph.members(spec)
        try:
            fits = spec.length == joint.length(ask.question) and spec.bits >= least_bits(ask, len(members))
        except ValueError as unfit:
            raise Declined("noise", str(unfit)) from None
        if not fits:
            raise Declined("shape", "the round is not of this question's length and modulus")
        self._check(server, ask)
        names = [range_.column for range_ in joint.ranges(ask.question)]
        try:
            values = joint.contribution(ask.question, self._columns(names))
        except (KeyError, ValueError, TypeError):
            raise Declined("columns", "not numeric columns of this vault: " + ", ".join(names)) from None
        own = noise_share(ask, len(members), self._known(members), self._vault.schema.unit_rows)
        order = spec.round()
        try:
            self._vault.spend(Digest(ask.grant), order, ask.epsilon_micro, ask.delta_pico)
        except Denied as denied:
            raise Declined(str(denied.code), denied.detail) from None
        if own is not None:
            values = noised(values, own, last_is_weight=False)
        self._vault.used(order, order)
        return Contribution(values)

    def _columns(self, names: list[str]) -> Mapping[str, Any]:
        schema = self._vault.schema
        if not schema.unit:
            return self._vault.columns(names)
        columns = self._vault.columns(list(dict.fromkeys([*names, schema.unit])))
        keep = joint.bounded(columns[schema.unit], schema.unit_rows)
        return {name: np.asarray(columns[name])[keep] for name in names}


class Statistic(msgspec.Struct, frozen=True):
    """What came out, of whom, and the round behind it."""

    found: joint.MomentsFound | joint.HistogramFound | joint.RegressionFound
    vaults: tuple[bytes, ...]
    refused: dict[bytes, str]
    summed: Summed


Handle = TypeVar("Handle", bound=bytes)
"""However the caller names a vault: its subject, say."""


async def joint_statistic(
    key: Key,
    send: Callable[[Handle, bytes], Awaitable[bytes]],
    asks: Mapping[Handle, Ask],
    *,
    nonce: bytes,
    beacon: bytes,
    expires_s: int,
    phase_s: float = 30.0,
    **more: Any,
) -> Statistic:
    """Ask all vaults, sum what those that are ready give, and compute.

    Args:
        send: as `aggregation.Sender`, to a vault by its handle; sealed, so that who answers is that vault.
        asks: alike but for the grants.

    Raises:
        NoSum: fewer than three vaults are ready, or too many dropped out.
        DoesNotFit: so small an epsilon takes more noise than 64 bits hold.
        TooFewRows: no rows to speak of are in the sum.
    """
    purposes = {ask.purpose() for ask in asks.values()}
    assert len(purposes) == 1, "one question at a time"
    ask = next(iter(asks.values()))
    refused: dict[bytes, str] = {}
    ready: dict[Address, Handle] = {}
    for handle, asked in asks.items():
        try:
            reply: Ready | Refused = decode(await send(handle, encode(asked)), _REPLY, MAX_ASK_BYTES)
        except (OSError, TimeoutError, Unreachable, Malformed) as error:
            refused[handle] = str(error) or type(error).__name__
            continue
        if isinstance(reply, Refused):
            refused[handle] = f"{reply.code}: {reply.detail}"
        else:
            ready[Address(reply.member)] = handle
    if len(ready) < 3:
        raise NoSum(
            Failed("questions", f"{len(ready)} of {len(asks)} vaults are ready; 3 must be", {}, {}), refused
        )
    spec = plan(
        key.address,
        tuple(ready),
        length=joint.length(ask.question),
        largest=joint.largest(joint.MAX_ROWS),
        nonce=nonce,
        beacon=beacon,
        purpose=next(iter(purposes)),
        expires_s=expires_s,
    )
    spec = msgspec.structs.replace(spec, bits=least_bits(ask, len(ready)))

    async def to_member(who: Address, body: bytes) -> bytes:
        return await send(ready[who], body)

    summed = await Aggregation(key, to_member, phase_s, **more).sum(spec)
    refused |= {ready[who]: why for who, why in summed.gone.items()}
    inside = tuple(bytes(ready[who]) for who in summed.transcript.weights)
    return Statistic(joint.found(ask.question, summed.values), inside, refused, summed)
