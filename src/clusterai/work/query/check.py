"""What shows in a query's answer to those who have neither the data nor the requester's key: gateways and validators.

That it is the answer to this query, that the use which the vault signed spends this query's ε under this query's grant and for this query, and that
sums hold. Whether the numbers inside are right shows to nobody without the data: an owner of a replica, or an auditor whom the owner gives data
and noise key, draws them again (`adapters.computing`) and must get the very bytes whose digest stands in the use.
"""

import math

from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.work.kind import Findings
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.query.spec import QuerySpec, Refusal, decode_said

HONEST_MILLI, FALSE_MILLI = -1_000, 30_000
"""As of an interval of a rented machine: one answer that can't be convicts."""


def wrong(spec: QuerySpec, tokens: tuple[int, ...], reason: str) -> str | None:
    """Why these tokens can't be this query's answer; None where nothing shows."""
    if reason != "stop":
        return f"an answer to a query doesn't end by {reason[:16]!r}"
    try:
        said = decode_said(bytes_of(tokens))
    except (Unpackable, Malformed) as error:
        return f"not an answer to a query: {str(error)[:200]}"
    if said.query != spec.digest():
        return "it answers another query"
    if isinstance(said, Refusal):
        return None
    use = said.use.use
    for what, found, due in (
        ("data set", use.dataset, spec.dataset),
        ("grant", use.grant, spec.grant),
        ("requester", use.requester, spec.requester),
        ("query", use.order, said.query),
        ("ε", use.epsilon_micro, spec.epsilon_micro),
    ):
        if found != due:
            return f"its use is of another {what}"
    if not use.epsilon_micro <= use.grant_spent_micro <= use.total_spent_micro:
        return "its use's sums don't hold: this use, all of the grant, and all together"
    if use.result == ZERO_DIGEST:
        return "its use says that nothing left the vault"
    return None


async def check_part(spec: QuerySpec, tokens: tuple[int, ...], reason: str, lot: bytes) -> Findings:
    """All that can be checked is, whatever `lot` draws."""
    if wrong(spec, tokens, reason) is not None:
        return Findings(1, 0, FALSE_MILLI, -1)
    return Findings(1, 1, HONEST_MILLI, 0)


async def judge_answer(
    engine: object, spec: QuerySpec, tokens: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """The same, for those who want to see the evidence."""
    found = await check_part(spec, tokens, reason, b"")
    return found, [0.0 if found.matches else math.inf]


def spell(engine: object, answer: tuple[int, ...]) -> list[str]:
    return [f"{token} " for token in answer]
