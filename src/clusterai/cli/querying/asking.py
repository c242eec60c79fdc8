"""One question to several vaults: what it would cost and tell, what came, and whether what came is what the vaults logged.

People of different vaults are taken to be different people: then each vault's ε is its own, and the largest one is what a person may
have spent (parallel composition). Who is in two of them has spent the sum.
"""

import asyncio
import base64
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.querying.vaults import Found, lacking, standing, waiting
from clusterai.cli.vaultreach import Reach
from clusterai.protocol import access, canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST, Digest, address, hex0x
from clusterai.protocol.money import show as money
from clusterai.protocol.vaults import Operation, subject
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaults import ApiError, Unreachable
from clusterai.work.packed import tokens_of
from clusterai.work.query.adapters.accounting import rho_nano, together_micro
from clusterai.work.query.check import wrong
from clusterai.work.query.core.blocks import means_of
from clusterai.work.query.core.estimate import Answered, Cell, Estimate, estimated, expected
from clusterai.work.query.core.plan import Plan, RefusedQuery
from clusterai.work.query.core.release import MICRO, budget_of
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.spec import (
    KIND_NAME,
    SPARE_S,
    Answer,
    Averaged,
    Bound,
    Counted,
    QuerySpec,
    Result,
    asked,
    decode_result,
    decode_said,
)
from clusterai.work.uses import milli

USUAL_ROWS = 1_000
USUAL_DELTA_PICO = 10**6
MOST_VAULTS = 64


class Question(msgspec.Struct, frozen=True):
    """What is asked everywhere.

    Attributes:
        sql: or else `program`, with `bounds`, `blocks` and `block_s`.
        rows: of a group, for the error that is expected.
    """

    epsilon_micro: int
    delta_pico: int = 0
    sql: str = ""
    program: bytes = b""
    args: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()
    blocks: int = 0
    block_s: int = 0
    rows: int = USUAL_ROWS

    @property
    def operation(self) -> Operation:
        return Operation.QUERY if self.sql else Operation.CODE

    @property
    def code(self) -> Digest:
        return access.code_digest(self.program) if self.program else ZERO_DIGEST


class Planned(msgspec.Struct, frozen=True):
    """A question at one vault, before anything is paid.

    Attributes:
        grant: the one that will be used; None where this requester has none that holds it.
        error: half of the interval's width for each output, where a formula tells.
        mechanism: of the noise.
        most_left_micro: in the best of this requester's grants for such a question.
        waits: what a request of its for such an operation waits for; empty where none does.
    """

    vault: Found
    grant: access.Status | None
    price_wei: int | None
    outputs: tuple[str, ...]
    groups: int
    error: tuple[float | None, ...]
    mechanism: str
    plan: Plan | None
    most_left_micro: int
    waits: str


class Came(msgspec.Struct, frozen=True):
    """A vault's answer, opened and checked."""

    vault: Found
    spec: QuerySpec
    answer: Answer
    result: Result
    charged_wei: int
    provider: str


async def planned(reach: Reach, vault: Found, question: Question, who: Identity) -> Planned:
    """
    Raises:
        Failure: the question can't be asked there.
    """
    schema = vault.schema
    plan: Plan | None = None
    if question.sql:
        try:
            plan = plan_of(question.sql, schema)
        except RefusedQuery as error:
            raise Failure(
                f"{vault.name} doesn't answer this: {error.what}", next=error.instead, code=Exit.USAGE
            ) from None
        rho = rho_nano(question.epsilon_micro, question.delta_pico)
        budget = budget_of(plan, question.epsilon_micro, question.delta_pico, rho)
        outputs = tuple(it.name for it in plan.outputs)
        error, mechanism = tuple(expected(plan, budget, question.rows)), budget.mechanism
    else:
        outputs = names_of(question.bounds)
        middle = means_of(
            [0] * len(question.bounds),
            [(it.low_micro, it.high_micro) for it in question.bounds],
            question.blocks,
            question.epsilon_micro,
        )
        error = tuple(None if it.high is None or it.low is None else it.high - it.low for it in middle)
        mechanism = "laplace"
    price_wei = None
    if vault.serves is not None:
        price_wei = vault.serves.price_wei + milli(question.epsilon_micro) * vault.serves.epsilon_price_wei
    requests = await standing(reach, vault, who)
    grant = chosen(requests, question)
    left_micro = max((it.epsilon_micro - it.spent_micro for it in fitting(requests, question)), default=0)
    return Planned(
        vault,
        grant,
        price_wei,
        outputs,
        1 if plan is None else plan.groups,
        error,
        mechanism,
        plan,
        left_micro,
        waiting(requests, question.operation),
    )


def fitting(requests: Sequence[access.Status], question: Question) -> list[access.Status]:
    """Grants for such a question, whatever is left of them."""
    return [
        it
        for it in requests
        if it.state == "granted"
        and it.operation == question.operation
        and it.code == question.code
        and it.used < it.uses
    ]


def chosen(requests: Sequence[access.Status], question: Question) -> access.Status | None:
    """Of the grants that hold this question, the one that ends first."""
    fit = [
        it
        for it in fitting(requests, question)
        if it.spent_micro + question.epsilon_micro <= it.epsilon_micro
    ]
    return min(fit, key=lambda it: (it.expires_s, it.grant), default=None)


async def ask(
    reach: Reach,
    plans: Sequence[Planned],
    question: Question,
    who: Identity,
    most_wei: int | None,
) -> tuple[list[Came], list[Failure]]:
    """All vaults at once; nothing is asked of any where one of them lacks a grant or is too dear.

    Returns:
        What came, and why the others didn't answer: what was answered is paid, and isn't thrown away.

    Raises:
        Failure: nothing was asked, or nothing came.
    """
    for plan in plans:
        if plan.grant is None:
            raise Failure(
                f"{plan.vault.name} gave no grant that holds this",
                f"it takes ε {question.epsilon_micro / MICRO:g} of operation {question.operation.name.lower()};"
                f" {lacking(plan.most_left_micro, plan.waits)}",
                "clusterai data grants"
                if plan.waits
                else f"clusterai data request {plan.vault.name} --operation {question.operation.name.lower()}"
                f" --epsilon {question.epsilon_micro / MICRO:g}",
            )
        if plan.price_wei is None:
            raise Failure(
                f"nobody answers queries on {plan.vault.name} now",
                next="ask again later",
                code=Exit.NOT_RUNNING,
            )
    total_wei = sum(plan.price_wei or 0 for plan in plans)
    if most_wei is not None and total_wei > most_wei:
        raise Failure(
            f"this costs {money(total_wei)}, above --max-price {money(most_wei)}",
            next="raise it, or ask for less ε",
        )

    async def one(plan: Planned) -> Came | Failure:
        try:
            return await _ask(reach, plan, question, who)
        except Failure as error:
            return error
        except (ApiError, Unreachable) as error:
            return Failure(f"{plan.vault.name} didn't answer", str(error))

    told = await asyncio.gather(*map(one, plans))
    came = [it for it in told if isinstance(it, Came)]
    failed = [it for it in told if isinstance(it, Failure)]
    if not came:
        raise failed[0]
    return came, failed


async def _ask(reach: Reach, plan: Planned, question: Question, who: Identity) -> Came:
    vault = plan.vault
    assert plan.grant is not None, "looked at before"
    assert vault.serves is not None, "looked at before"
    spec = asked(
        dataset=vault.dataset,
        snapshot=vault.snapshot,
        grant=Digest(plan.grant.grant),
        requester=who.address,
        nonce=secrets.token_bytes(32),
        epsilon_micro=question.epsilon_micro,
        delta_pico=question.delta_pico if question.sql else 0,
        sql=question.sql,
        code=question.code,
        args=question.args,
        bounds=question.bounds,
        blocks=question.blocks,
        block_s=question.block_s,
    ).signed(who.key, vault.listed.network)
    # The order's key is the query's own digest: asking again after a broken connection is the same order.
    done = await reach.order(
        subject(vault.dataset, KIND_NAME),
        KIND_NAME,
        spec.canonical(),
        plan.price_wei,
        address(vault.serves.provider),
        spec.digest().hex(),
    )
    return checked(vault, spec, done.answer, who, done.charged_wei, done.provider)


def checked(
    vault: Found, spec: QuerySpec, raw: bytes, who: Identity, charged_wei: int, provider: str
) -> Came:
    """
    Raises:
        Failure: a refusal; or the answer isn't the one that the vault signed into its log.
    """
    if (why := wrong(spec, tokens_of(raw), "stop")) is not None:
        raise Failure(f"{vault.name} didn't answer this query", why, code=Exit.UNTRUE)
    said = decode_said(raw)
    if not isinstance(said, Answer):
        raise Failure(f"{vault.name} refused: {said.code}", said.detail)
    try:
        result = decode_result(who.opened(vault.listed.seal_to, said.sealed))
    except (NotFromVault, Malformed) as error:
        raise Failure(f"the answer of {vault.name} can't be opened", str(error), code=Exit.UNTRUE) from None
    for what, holds in (
        (
            "its use isn't signed by the vault's key",
            said.use.signed_by(vault.listed.signer, vault.listed.network),
        ),
        ("the log has another result", said.use.use.result == result.digest()),
        ("it answers another query", result.query == spec.digest()),
        ("it is of another snapshot", result.snapshot == spec.snapshot),
        ("it was made by another schema", result.schema == vault.schema.digest()),
        ("it answers another operation", isinstance(result.told, Counted if spec.sql else Averaged)),
        ("it spent another budget", not isinstance(result.told, Counted) or _honest(spec, result.told)),
    ):
        if not holds:
            raise Failure(
                f"the answer of {vault.name} is false", what, "keep the receipt: it convicts", Exit.UNTRUE
            )
    return Came(vault, spec, said, result, charged_wei, provider)


def _honest(spec: QuerySpec, told: Counted) -> bool:
    """Whether the noise is that of this ε and δ, and the numbers as many as the plan has."""
    budget = told.released.budget
    return budget.epsilon_micro == spec.epsilon_micro and (
        budget.rho_nano
        == (rho_nano(spec.epsilon_micro, spec.delta_pico) if budget.mechanism == "gauss" else 0)
    )


def joined(came: Sequence[Came]) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """(names of columns, rows) over all vaults.

    Raises:
        Failure: the vaults' answers don't fit together.
    """
    first = came[0]
    if isinstance(first.result.told, Averaged):
        bounds = [(it.low_micro, it.high_micro) for it in first.spec.bounds]
        parts = [
            means_of(it.result.told.sums, bounds, it.spec.blocks, it.spec.epsilon_micro)
            for it in came
            if isinstance(it.result.told, Averaged)
        ]
        return names_of(first.spec.bounds), [tuple(map(_mean, zip(*parts, strict=True)))]
    answered = [
        Answered(plan_of(it.spec.sql, it.vault.schema), it.result.told.released)
        for it in came
        if isinstance(it.result.told, Counted)
    ]
    try:
        return tuple(it.name for it in answered[0].plan.outputs), estimated(answered)
    except ValueError as error:
        raise Failure("the vaults' answers don't fit together", str(error), "ask each vault alone") from None


def _mean(parts: Sequence[Estimate]) -> Estimate:
    """Of a number over vaults: each vault counts the same, since nobody says how many people it has."""
    if len(parts) == 1:
        return parts[0]
    values = [it.value for it in parts if it.value is not None]
    halves = [(it.high - it.low) / 2 for it in parts if it.low is not None and it.high is not None]
    value = sum(values) / len(values)
    half = sum(it * it for it in halves) ** 0.5 / len(values)
    return Estimate(value, value - half, value + half)


def names_of(bounds: Sequence[Bound]) -> tuple[str, ...]:
    return tuple(f"number {at + 1}" for at in range(len(bounds)))


def plan_told(plans: Sequence[Planned], question: Question) -> dict[str, Any]:
    """For JSON."""
    return {
        "epsilon": question.epsilon_micro / MICRO,
        "delta": question.delta_pico / 10**12,
        "operation": question.operation.name.lower(),
        "rows_assumed": question.rows,
        "seconds": question.blocks * (question.block_s + SPARE_S),
        "price_wei": sum(plan.price_wei or 0 for plan in plans),
        "vaults": [
            {
                "name": plan.vault.name,
                "dataset": hex0x(plan.vault.dataset),
                "price_wei": plan.price_wei,
                "provider": None if plan.vault.serves is None else plan.vault.serves.provider,
                "grant": None if plan.grant is None else hex0x(Digest(plan.grant.grant)),
                "grant_left": None
                if plan.grant is None
                else (plan.grant.epsilon_micro - plan.grant.spent_micro) / MICRO,
                "spent_together": together(plan, question) / MICRO,
                "mechanism": plan.mechanism,
                "groups": plan.groups,
                "columns": list(plan.outputs),
                "expected_error": list(plan.error),
            }
            for plan in plans
        ],
    }


def together(plan: Planned, question: Question) -> int:
    """What this grant's uses and this query come to at δ = 1e-6, by concentrated composition, where all uses were alike."""
    spent = (
        [] if plan.grant is None else [plan.grant.spent_micro // max(1, plan.grant.used)] * plan.grant.used
    )
    return together_micro([*spent, question.epsilon_micro], USUAL_DELTA_PICO)


def answers_told(
    came: Sequence[Came], names: Sequence[str], rows: Sequence[tuple[Cell, ...]]
) -> dict[str, Any]:
    """For JSON."""
    return {
        "columns": list(names),
        "rows": [
            {name: msgspec.to_builtins(cell) for name, cell in zip(names, row, strict=True)} for row in rows
        ],
        "charged_wei": sum(it.charged_wei for it in came),
        "vaults": [
            {
                "name": it.vault.name,
                "dataset": hex0x(it.vault.dataset),
                "query": hex0x(it.spec.digest()),
                "request": base64.b64encode(it.spec.canonical()).decode(),
                "answer": base64.b64encode(canonical.encode(it.answer)).decode(),
                "result": hex0x(it.result.digest()),
                "use": it.answer.use.use.index,
                "epsilon": it.spec.epsilon_micro / MICRO,
                "grant_spent": it.answer.use.use.grant_spent_micro / MICRO,
                "charged_wei": it.charged_wei,
                "provider": it.provider,
            }
            for it in came
        ],
    }
