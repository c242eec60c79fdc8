"""Which texts of a vault are anonymised, as its policy wants it: columns when the data is put in, outputs before their owner reads them.

The vault then holds nothing else: SQL, programs, training, copies, and an auditor who is given rows and noise key see the same texts. What is found
and what is missed is `adapters.anonymising`'s affair; here is only that nothing goes round it.
"""

import msgspec

from clusterai.protocol.vaults import Operation
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.schema import BadSchema, Schema
from clusterai.vault.core.terms import Denied

HANDS_OUT = frozenset({Operation.CODE, Operation.REVIEW, Operation.TRAINING, Operation.COPY})
"""Operations in which texts come to others' programs or go to others. A query answers with noisy numbers."""
STRENGTH = {"": 0, "usual": 1, "strict": 2}


def marked(schema: Schema, policy: Policy) -> Schema:
    """The schema, saying of each text how it is anonymised when the data is put in: as it says itself or as the policy wants, whichever is more.

    Raises:
        BadSchema: people are told apart by a text that would be anonymised.
    """
    wanted = policy.anonymise_texts
    columns = tuple(
        msgspec.structs.replace(column, anonymised=wanted)
        if column.kind == "text" and STRENGTH[column.anonymised] < STRENGTH[wanted]
        else column
        for column in schema.columns
    )
    found = msgspec.structs.replace(schema, columns=columns)
    if any(column.anonymised and column.name == schema.unit for column in columns):
        raise BadSchema(
            f"the unit {schema.unit} is a text that would be anonymised, and all people would be one: number them instead"
        )
    return found


def left_standing(schema: Schema, policy: Policy) -> tuple[str, ...]:
    """Texts that lie in the vault less anonymised than its policy wants."""
    least = STRENGTH[policy.anonymise_texts]
    return tuple(it.name for it in schema.columns if it.kind == "text" and STRENGTH[it.anonymised] < least)


def check(schema: Schema, policy: Policy, operation: int) -> None:
    """
    Raises:
        Denied: anonymise.
    """
    names = left_standing(schema, policy) if operation in HANDS_OUT else ()
    if names:
        raise Denied(
            "anonymise",
            f"the policy wants texts anonymised, and {', '.join(names)[:500]} was put in before it did: "
            "the owner puts the data in once more",
        )
