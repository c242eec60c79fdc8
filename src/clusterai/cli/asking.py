"""The requester's side of a vault: finding it, asking for access, and how one's requests stand."""

import secrets
import time
from pathlib import Path
from typing import Any, cast

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.names import Names
from clusterai.cli.vaultreach import Reach, listed_as
from clusterai.protocol import access, canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import BadId, Digest, hex0x
from clusterai.protocol.ids import digest as read_digest
from clusterai.protocol.vaults import Operation, subject
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaults import Listed, Untrue
from clusterai.vault.core.card import BadCard, VaultFacts, read_facts
from clusterai.vault.core.schema import BadSchema

DAY_S = 86_400


class Wish(msgspec.Struct, frozen=True):
    """What `clusterai data request` was told."""

    operation: int
    purpose: str
    epsilon_micro: int
    uses: int
    price_wei: int
    days: int
    code: bytes


class Standing(msgspec.Struct, frozen=True):
    """A request as people and programs are shown it."""

    dataset: str
    name: str
    request: str
    grant: str | None
    state: str
    operation: str
    code: str
    epsilon: float
    spent_epsilon: float
    uses: int
    used: int
    expires_s: int
    use_wei: int
    milli_epsilon_wei: int
    note: str


async def found(reach: Reach, wanted: str, names: Names) -> tuple[Listed, VaultFacts]:
    """The vault of that name, owner or id, and what its card says.

    Raises:
        Failure: there is none, there are several, or its card isn't what its owner signed.
    """
    try:
        listed = await listed_as(reach, wanted, names)
        return listed, read_facts(msgspec.json.encode(listed.card))
    except Untrue as error:
        raise Failure(f"{wanted} can't be believed", str(error), code=Exit.UNTRUE) from None
    except (BadCard, BadSchema, ValueError) as error:
        raise Failure(
            f"{wanted} is no vault", str(error), "clusterai data fetch gets public data", Exit.NOT_FOUND
        ) from None


def prices_of(policy: dict[str, Any], operation: Operation) -> tuple[int, int, int]:
    """What a card says that an operation costs: a thousandth of ε, a use, a copy. Nothing, where it says nonsense: the offer's price is what counts."""
    programs = (Operation.CODE, Operation.REVIEW)
    name = (Operation.QUERY if operation in programs else operation).name.lower()
    others: Any = policy.get("prices")
    own: Any = cast("dict[str, Any]", others).get(name) if isinstance(others, dict) else None
    found = {**policy, **cast("dict[str, Any]", own)} if isinstance(own, dict) else policy
    milli, use, copy = (found.get(it, 0) for it in ("milli_epsilon_wei", "use_wei", "copy_wei"))
    return _amount(milli), _amount(use), _amount(copy)


def _amount(said: object) -> int:
    return said if isinstance(said, int) and said >= 0 else 0


def refused_anyway(facts: VaultFacts, wish: Wish) -> Failure | None:
    """What the vault's published policy says that it would refuse, before anything is sent."""
    policy, name = facts.policy, Operation(wish.operation).name.lower()
    allowed = policy.get("operations", [])
    if name not in allowed:
        return Failure(
            f"{name} isn't allowed there",
            f"its policy allows {', '.join(allowed)}",
            f"--operation {allowed[0]}" if allowed else "",
        )
    most = policy.get("grant_epsilon_micro", 0)
    if wish.epsilon_micro > most:
        return Failure(
            f"ε {wish.epsilon_micro / 1e6:g} is more than a grant has there",
            f"its policy gives {most / 1e6:g} at most",
            f"--epsilon {most / 1e6:g}",
        )
    return None


async def request(reach: Reach, listed: Listed, who: Identity, wish: Wish) -> Standing:
    """Ask, and how the request stands then.

    Raises:
        Failure: the vault refuses.
    """
    signed = who.request(
        listed.dataset,
        listed.network,
        wish.operation,
        wish.purpose,
        wish.epsilon_micro,
        wish.uses,
        wish.price_wei,
        int(time.time()) + wish.days * DAY_S,
        wish.code,
    )
    asked = access.AskAccess(signed, wish.purpose, wish.code)
    [status] = await _told(reach, listed, who, asked)
    return _standing(listed, status)


async def standings(reach: Reach, listed: Listed, who: Identity) -> list[Standing]:
    """All that this identity asked of a vault.

    Raises:
        Failure: the vault refuses.
    """
    return [_standing(listed, it) for it in await _told(reach, listed, who, access.AskStanding())]


class Ran(msgspec.Struct, frozen=True):
    """A program that ran for review: `order` names what it left."""

    name: str
    order: str
    charged_wei: int
    provider: str


async def ran(
    reach: Reach,
    listed: Listed,
    who: Identity,
    program: bytes,
    args: tuple[str, ...],
    seconds: int,
    most_wei: int | None,
) -> Ran:
    """Run a granted program over all rows; what it made stays at the vault until its owner has read it.

    Raises:
        Failure: no grant is for this program, or the vault refuses.
    """
    code = access.code_digest(program)
    grant = next(
        (
            Digest(it.grant)
            for it in await _told(reach, listed, who, access.AskStanding())
            if it.operation == Operation.REVIEW
            and it.code == code
            and it.state == "granted"
            and it.used < it.uses
        ),
        None,
    )
    if grant is None:
        raise Failure(
            f"{listed.name} gave no grant for this program",
            f"its digest is {hex0x(code)}",
            f"clusterai data request {listed.name} --operation review --program FILE --uses 2 --purpose …",
        )
    from clusterai.work.query import spec as query

    unsigned = query.asked(
        dataset=listed.dataset,
        snapshot=Digest(listed.listing.snapshot),
        grant=grant,
        requester=who.address,
        nonce=secrets.token_bytes(32),
        code=code,
        args=args,
        block_s=seconds,
    )
    spec = unsigned.signed(who.key, listed.network)
    about = subject(listed.dataset, query.KIND_NAME)
    done = await reach.order(about, query.KIND_NAME, spec.canonical(), most_wei)
    try:
        said = query.decode_said(done.answer)
    except Malformed as error:
        raise Failure(f"{listed.name} answered something else", str(error), code=Exit.UNTRUE) from None
    if isinstance(said, query.Refusal):
        raise Failure(f"{listed.name} refuses: {said.detail}", said.code)
    return Ran(listed.name, hex0x(spec.digest()), done.charged_wei, done.provider)


async def result(reach: Reach, listed: Listed, who: Identity, order: Digest) -> bytes:
    """What a program left, once the vault's owner let it go.

    Raises:
        Failure: not yet, withheld, or not what the log says.
    """
    told = await _answered(reach, listed, who, access.AskOutput(order))
    match told:
        case access.OutputShown(output, use):
            if use.use.result != canonical.content_digest(output) or not use.signed_by(
                listed.signer, listed.network
            ):
                raise Failure("this isn't what the vault's log says that left", code=Exit.UNTRUE)
            return output
        case access.NotGiven(code, detail):
            raise Failure(detail, code, "try again later" if code == "pending" else "")
        case _:
            raise Failure(f"{listed.name} answered something else", code=Exit.UNTRUE)


async def _told(reach: Reach, listed: Listed, who: Identity, ask: access.Ask) -> tuple[access.Status, ...]:
    match await _answered(reach, listed, who, ask):
        case access.Standing(requests):
            return requests
        case access.NotGiven(code, detail):
            raise Failure(f"{listed.name} refuses: {detail}", code)
        case _:
            raise Failure(f"{listed.name} answered something else", code=Exit.UNTRUE)


async def _answered(reach: Reach, listed: Listed, who: Identity, ask: access.Ask) -> access.Told:
    try:
        return access.decode_told(await reach.ask(who, listed, "vault", canonical.encode(ask)))
    except (NotFromVault, Malformed, Untrue) as error:
        raise Failure(f"{listed.name} didn't answer this", str(error), code=Exit.UNTRUE) from None


def _standing(listed: Listed, it: access.Status) -> Standing:
    return Standing(
        hex0x(listed.dataset),
        listed.name,
        hex0x(it.request),
        hex0x(it.grant) if any(it.grant) else None,
        it.state,
        Operation(it.operation).name.lower(),
        hex0x(it.code),
        it.epsilon_micro / 1e6,
        it.spent_micro / 1e6,
        it.uses,
        it.used,
        it.expires_s,
        it.use_wei,
        it.milli_epsilon_wei,
        it.note,
    )


# --- which vaults were asked ---


def remember(path: Path, dataset: Digest, name: str) -> None:
    """Note that this vault was asked, and what it is called: when it is away nobody else says so."""
    if remembered(path).get(dataset) != name:
        path.parent.mkdir(parents=True, exist_ok=True)
        words = "".join(it if it.isprintable() else " " for it in name)
        with path.open("a") as file:
            file.write(f"{hex0x(dataset)} {words}\n")


def remembered(path: Path) -> dict[Digest, str]:
    """Vaults that were asked, oldest first, by their newest names; lines that say nothing are passed over."""
    if not path.exists():
        return {}
    found_: dict[Digest, str] = {}
    for line in path.read_text().splitlines():
        digest, _, name = line.strip().partition(" ")
        try:
            found_[read_digest(digest)] = name
        except BadId:
            continue
    return found_
