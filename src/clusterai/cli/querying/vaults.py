"""Vaults as a requester reaches them through a gateway that it needn't trust: their cards, its grants there."""

from collections.abc import Iterable

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.names import Names
from clusterai.cli.vaultreach import Reach, listed_as
from clusterai.protocol import access, canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.vaults import subject
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaults import Listed, Untrue
from clusterai.sdk.vaultshapes import Served
from clusterai.vault.core.policy import MICRO
from clusterai.vault.core.schema import BadSchema, Schema
from clusterai.work.query.spec import KIND_NAME


class Found(msgspec.Struct, frozen=True):
    """A vault.

    Attributes:
        serves: who answers queries on it at which prices; None where nobody does now.
    """

    listed: Listed
    schema: Schema
    serves: Served | None

    @property
    def name(self) -> str:
        return self.listed.name

    @property
    def dataset(self) -> Digest:
        return self.listed.dataset

    @property
    def snapshot(self) -> Digest:
        return Digest(self.listed.listing.snapshot)


async def found(reach: Reach, wanted: str, names: Names) -> Found:
    """The vault of that name, owner or id.

    Raises:
        Failure: there is none, there are several, or its card isn't what its owner signed.
    """
    try:
        listed = await listed_as(reach, wanted, names)
        schema = msgspec.convert(listed.card["clusterai"]["schema"], Schema)
        schema.check()
    except Untrue as error:
        raise Failure(f"{wanted} can't be believed", str(error), code=Exit.UNTRUE) from None
    except (KeyError, TypeError, msgspec.ValidationError, BadSchema) as error:
        raise Failure(f"{wanted} is no vault that answers queries", str(error), code=Exit.NOT_FOUND) from None
    about = hex0x(subject(listed.dataset, KIND_NAME))
    return Found(listed, schema, next((it for it in listed.serves if it.subject == about), None))


def waiting(requests: Iterable[access.Status], operation: int) -> str:
    """What one for this operation waits for; empty where none does."""
    for it in requests:
        if it.operation == operation and it.state == "approved":
            return "a request is on its way to the chain"
        if it.operation == operation and it.state == "asked":
            note = "".join(one if one.isprintable() else " " for one in it.note[:500])
            return f"a request waits: {note}" if note else "a request waits for its owner"
    return ""


def lacking(most_left_micro: int, waits: str) -> str:
    """Why no grant holds a question, where it is known what is left of the best one."""
    why = (
        f"the best grant has ε {most_left_micro / MICRO:g} left"
        if most_left_micro
        else "there is none with anything left"
    )
    return f"{why}; {waits}" if waits else why


async def standing(reach: Reach, vault: Found, who: Identity) -> tuple[access.Status, ...]:
    """This requester's requests there, and what became of them.

    Raises:
        Failure: the vault refuses.
    """
    try:
        told = access.decode_told(
            await reach.ask(who, vault.listed, "vault", canonical.encode(access.AskStanding()))
        )
    except (NotFromVault, Malformed) as error:
        raise Failure(f"{vault.name} didn't answer this", str(error), code=Exit.UNTRUE) from None
    match told:
        case access.Standing(requests):
            return requests
        case access.NotGiven(code, detail):
            raise Failure(f"{vault.name} refuses", f"{code}: {detail}")
        case _:
            raise Failure(f"{vault.name} answered something else", code=Exit.UNTRUE)
