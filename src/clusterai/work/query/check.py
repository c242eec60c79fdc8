"""What shows in a query's answer to those who have neither the data nor the requester's key: gateways and validators.

That it is the answer to this query, that the use which the vault signed spends this query's ε under this query's grant and for this query, and that
sums hold. Whether the numbers inside are right shows to nobody without the data: an owner of a replica, or an auditor whom the owner gives data
and noise key, draws them again (`adapters.computing`) and must get the very bytes whose digest stands in the use.
"""

from clusterai.protocol.canonical import Malformed
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.query.spec import QuerySpec, Refusal, decode_said
from clusterai.work.uses import checks, foreign_to


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
    return None if isinstance(said, Refusal) else foreign_to(spec, said.use.use)


check_part, judge_answer = checks(wrong)
