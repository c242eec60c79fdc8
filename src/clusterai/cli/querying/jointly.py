"""`clusterai query --joint`: one statistic over several vaults, of sums that nobody sees a part of."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.querying.vaults import Found, lacking, standing, waiting
from clusterai.cli.vaultreach import Reach
from clusterai.protocol import access, canonical
from clusterai.protocol.ids import ZERO_DIGEST, Digest, address, hex0x
from clusterai.protocol.money import show as money
from clusterai.protocol.vaults import Operation, subject
from clusterai.sdk.client import ApiError
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaults import Untrue
from clusterai.sdk.vaultshapes import Served
from clusterai.work.joint.adapters.asking import Asking, Lost, NoStatistic, Paid, Statistic
from clusterai.work.joint.adapters.noise import own_noise
from clusterai.work.joint.core.question import BadQuestion, Wanted, question_of
from clusterai.work.joint.spec import KIND_NAME, LEAST_VAULTS, MOST_VAULTS, ShareOrder, Way
from clusterai.work.uses import milli

MICRO = 1_000_000
USUAL_DELTA_PICO = 10_000
"""1e-8: a vault's δ is for ever, and a hundred such questions are what a policy has by default."""


class Planned(msgspec.Struct, frozen=True):
    """One vault, before anything is asked of it. Its price is None where nobody gives shares of it now."""

    vault: Found
    serves: Served | None
    price_wei: int | None
    grant: access.Status | None
    most_left_micro: int
    waits: str

    @property
    def name(self) -> str:
        return self.vault.name


class Remote:
    """A vault behind a gateway, as `work.joint.adapters.asking.Party`."""

    def __init__(self, reach: Reach, plan: Planned, who: Identity) -> None:
        assert plan.grant is not None, "looked at before"
        assert plan.serves is not None, "looked at before"
        listed = plan.vault.listed
        self.name, self.schema = listed.name, plan.vault.schema
        self.dataset, self.snapshot = listed.dataset, plan.vault.snapshot
        self.subject = subject(listed.dataset, KIND_NAME)
        self.grant = Digest(plan.grant.grant)
        self.signer, self.network = listed.signer, listed.network
        self._provider, self._price_wei = address(plan.serves.provider), plan.price_wei
        self._reach, self._listed, self._who = reach, listed, who

    async def call(self, data: bytes) -> bytes:
        try:
            return await self._reach.ask(self._who, self._listed, KIND_NAME, data)
        except (ApiError, NotFromVault, Untrue) as error:
            raise Lost(str(error)) from None

    async def order(self, order: ShareOrder, most_wei: int | None) -> Paid:
        """Named by its own digest: asked twice, after a broken line say, it is one order, paid once."""
        name = order.digest().hex()
        try:
            done = await self._reach.order(
                self.subject, KIND_NAME, order.canonical(), self._price_wei, self._provider, name
            )
        except ApiError as error:
            raise Lost(str(error)) from None
        receipt = None if done.receipt is None else msgspec.to_builtins(done.receipt)
        return Paid(done.answer, done.charged_wei, receipt, done.provider)


async def planned(reach: Reach, vault: Found, epsilon_micro: int, who: Identity) -> Planned:
    """
    Raises:
        Failure: the vault refuses.
    """
    about = hex0x(subject(vault.dataset, KIND_NAME))
    serves = next((it for it in vault.listed.serves if it.subject == about), None)
    price_wei = None if serves is None else serves.price_wei + milli(epsilon_micro) * serves.epsilon_price_wei
    requests = await standing(reach, vault, who)
    mine = [
        it
        for it in requests
        if it.state == "granted"
        and it.operation == Operation.JOINT
        and it.code == ZERO_DIGEST
        and it.used < it.uses
        and bool(it.epsilon_micro) == bool(epsilon_micro)
    ]
    fit = [it for it in mine if it.spent_micro + epsilon_micro <= it.epsilon_micro]
    grant = min(fit, key=lambda it: (it.expires_s, it.grant), default=None)
    left_micro = max((it.epsilon_micro - it.spent_micro for it in mine), default=0)
    return Planned(vault, serves, price_wei, grant, left_micro, waiting(requests, Operation.JOINT))


def wanted_of(sql: str, plans: Sequence[Planned]) -> Wanted:
    """
    Raises:
        Failure: there are too few vaults, or they don't answer this together.
    """
    if not LEAST_VAULTS <= len(plans) <= MOST_VAULTS:
        raise Failure(
            f"{len(plans)} vault(s) in a joint query",
            "a sum over fewer than three tells each its other"
            if len(plans) < LEAST_VAULTS
            else f"{MOST_VAULTS} are the most",
            f"name {LEAST_VAULTS} to {MOST_VAULTS} vaults",
            Exit.USAGE,
        )
    try:
        return question_of(sql, {it.name: it.vault.schema for it in plans})
    except BadQuestion as error:
        raise Failure(
            f"vaults don't answer this together: {error.what}", next=error.instead, code=Exit.USAGE
        ) from None


def told(plans: Sequence[Planned], epsilon_micro: int) -> list[str]:
    """The plan as people read it."""
    lines: list[str] = []
    for plan in plans:
        price = "nobody gives shares of it now" if plan.price_wei is None else money(plan.price_wei)
        grant = "no grant: clusterai data request --operation joint"
        if plan.grant is not None and epsilon_micro:
            left = (plan.grant.epsilon_micro - plan.grant.spent_micro) / MICRO
            grant = f"{left:g} of ε {plan.grant.epsilon_micro / MICRO:g} left in the grant"
        elif plan.grant is not None:
            grant = "granted without noise"
        lines.append(f"{plan.name}: {price}; {grant}")
    return lines


def plan_told(plans: Sequence[Planned], wanted: Wanted, epsilon_micro: int, by: Way) -> dict[str, Any]:
    return {
        "joint": True,
        "by": by,
        "question": type(wanted.question).__name__.lower(),
        "epsilon": epsilon_micro / MICRO,
        "vaults": [
            {
                "name": it.name,
                "dataset": hex0x(it.vault.dataset),
                "price_wei": it.price_wei,
                "granted": it.grant is not None,
            }
            for it in plans
        ],
    }


async def ask(
    reach: Reach,
    plans: Sequence[Planned],
    wanted: Wanted,
    who: Identity,
    *,
    epsilon_micro: int,
    delta_pico: int,
    by: Way,
    most_wei: int | None,
) -> Statistic:
    """
    Raises:
        Failure: nothing was asked, or nothing came.
    """
    for plan in plans:
        if plan.grant is None:
            raise Failure(
                f"{plan.name} gave no grant that holds this",
                f"it takes {f'ε {epsilon_micro / MICRO:g}' if epsilon_micro else 'no ε'} of operation joint;"
                f" {lacking(plan.most_left_micro, plan.waits)}",
                "clusterai data grants"
                if plan.waits
                else f"clusterai data request {plan.name} --operation joint --epsilon {epsilon_micro / MICRO:g}",
            )
        if plan.price_wei is None:
            raise Failure(
                f"nobody gives shares of {plan.name} now", next="ask again later", code=Exit.NOT_RUNNING
            )
    total_wei = sum(plan.price_wei or 0 for plan in plans)
    if most_wei is not None and total_wei > most_wei:
        raise Failure(
            f"this costs {money(total_wei)}, above --max-price {money(most_wei)}",
            next="raise it, or ask for less ε",
        )
    try:
        for plan in plans:
            own_noise(wanted.question, epsilon_micro, delta_pico, plan.vault.schema.unit_rows)
        asking = Asking(
            who.key,
            [Remote(reach, plan, who) for plan in plans],
            wanted,
            epsilon_micro=epsilon_micro,
            delta_pico=delta_pico,
            by=by,
        )
        return await asking.statistic()
    except NoStatistic as error:
        lost = f"; {money(error.charged_wei)} was charged, and that ε is spent" if error.charged_wei else ""
        why = "; ".join(f"{name}: {it}" for name, it in error.dropped.items())
        then = "ask again, without those named" if why else ""
        raise Failure(f"no joint statistic: {error}{lost}", why, then) from None
    except ValueError as error:
        raise Failure(
            "nothing can be computed of this", str(error), "ask with more ε, or fewer numbers"
        ) from None


def answer_told(came: Statistic) -> dict[str, Any]:
    return {
        "joint": True,
        "by": came.study.by,
        "study": hex0x(came.study.digest),
        "answer": [
            {"name": name, "value": value, "half_width": came.half[name]}
            for name, value in came.values.items()
        ],
        "vaults": [
            {
                "name": it.name,
                "in_sum": it.name in came.vaults,
                "charged_wei": it.charged_wei,
                "provider": it.provider,
                "dataset": hex0x(Digest(it.order.dataset)),
                "order": hex0x(Digest(it.pledge.order)),
                "request": base64.b64encode(it.order.canonical()).decode(),
                "answer": base64.b64encode(canonical.encode(it.pledge)).decode(),
                "tally": None
                if (tally := came.tallies.get(it.name)) is None
                else base64.b64encode(canonical.encode(tally)).decode(),
                "use": it.pledge.use.use.index,
                "grant_spent_epsilon": it.pledge.use.use.grant_spent_micro / MICRO,
            }
            for it in came.parts
        ],
        "dropped": came.dropped,
        "found_wrong": {name: code for name, code in came.checked.items() if code},
        "charged_wei": came.charged_wei,
    }
