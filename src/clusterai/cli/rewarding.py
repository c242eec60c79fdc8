"""What `clusterai data reward` reads from files and vaults: who takes part, what a table's digest is, and copies for the evaluator."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from clusterai.audit.core.contribution.neighbours import UNIT
from clusterai.cli import contributing
from clusterai.cli.contributing import Given, Terms
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import identity_at
from clusterai.cli.pots import Fixed, Found, Scored, Told
from clusterai.protocol import ids
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, checksummed, hex0x
from clusterai.protocol.money import BadAmount, parse


def amount(text: str) -> int:
    """
    Raises:
        Failure: it is none.
    """
    try:
        return parse(text)
    except BadAmount as error:
        raise Failure(f"{text} is no amount", str(error), code=Exit.USAGE) from None


def address_of(text: str) -> Address:
    """
    Raises:
        Failure: it is none.
    """
    try:
        return ids.address(text)
    except ids.BadId as error:
        raise Failure(f"{text} is nobody's address", str(error), code=Exit.USAGE) from None


class RowsPot:
    """A pot for rows, as `pots.Fixed`: they are valued on rows that nobody contributed."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.digest = terms.study.digest()
        self.pot_wei = terms.study.pot_wei

    def scored(self, told: Told, beacon: Callable[[], bytes]) -> Scored:
        appraisal, left = contributing.appraised_for(self._terms, told.asked(), beacon())
        contributors = tuple(
            {
                "owner": checksummed(Address(it.contributor)),
                "own": it.own,
                "copied": it.copied,
                "value": it.value / UNIT,
                "error": it.error / UNIT,
                "doubt": it.doubt / UNIT,
                "quality": it.quality_milli / 1_000,
                "score": it.score / UNIT,
                "propose_slashing": it.poison,
            }
            for it in appraisal.contributors
        )
        scores = appraisal.scores(told.pot.participants)
        return Scored(appraisal.digest(), scores, contributors, tuple(left))


def terms(study: Path, pot_wei: int) -> Fixed:
    """What a study's file fixes: rows to be valued, or a federated run.

    Raises:
        Failure: a file is missing or isn't what it should be.
    """
    if not contributing.study_file(study).app:
        return RowsPot(contributing.terms_at(study, pot_wei))
    from clusterai.cli import runpots

    return runpots.run_pot(study, pot_wei)


def participants(
    study: Path, data: Path | None, network: Path | None, identity: Path | None = None
) -> list[tuple[Address, Address]]:
    """Owners with who brought them. Those named by their vaults alone are asked of the gateway, and written into the study's file; so is who has
    an app run, if that isn't said: this identity.

    Raises:
        Failure: somebody is named by neither, or the vault isn't found.
    """
    said = file = contributing.study_file(study)
    unknown = [it for it in file.contributions if not it.owner]
    if any(not it.vault for it in unknown):
        raise Failure(f"{study} names a contributor by neither owner nor vault", code=Exit.USAGE)
    if unknown:
        owners = asyncio.run(_owners([it.vault for it in unknown], identity, data, network))
        named = tuple(
            it if it.owner else msgspec.structs.replace(it, owner=checksummed(owners[it.vault]))
            for it in file.contributions
        )
        file = msgspec.structs.replace(file, contributions=named)
    if file.app and not file.requester:
        who = identity_at(identity).address
        file = msgspec.structs.replace(file, requester=checksummed(who))
    if file != said:
        study.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
    return [
        (ids.address(it.owner), ids.address(it.referrer) if it.referrer else ZERO_ADDRESS)
        for it in file.contributions
    ]


async def _owners(
    wanted: list[str], identity: Path | None, data: Path | None, network: Path | None
) -> dict[str, Address]:
    from clusterai.cli import asking
    from clusterai.cli.names import names_at
    from clusterai.cli.reach import vaults_at

    names = names_at(identity, data, network)
    async with vaults_at(data, network) as reach:
        return {it: Address((await asking.found(reach, it, names))[0].listing.owner) for it in wanted}


def table_digest(path: Path) -> Digest:
    return Digest(blake3(contributing.read(path)).digest())


def vault_digest(folder: Path, stays: bool = False) -> Digest:
    """Of the table that a buyer of a copy gets; with `stays` the snapshot of the data, as the vault signs it.

    Raises:
        Failure: there is no vault, or it can't be opened.
    """
    from clusterai.vault.adapters import opening
    from clusterai.vault.adapters.folder import BadVault, NoVault, VaultFolder
    from clusterai.vault.adapters.piecestore import StoreFault
    from clusterai.vault.adapters.storage import Damaged, NoData, Storage, WrongKey

    try:
        vault = VaultFolder(folder)
        storage = Storage(vault.store, vault.master(), vault.named.store)
        try:
            if storage.manifest is None:
                raise NoData(f"there is no data in {folder}")
            if stays:
                return storage.manifest.snapshot
            file = io.StringIO(newline="")
            opening.lay(storage.manifest.schema, storage.pieces(), file)
        finally:
            storage.close()
    except (NoVault, BadVault, NoData, Damaged, WrongKey, StoreFault) as error:
        raise Failure(f"{folder} gives no table", str(error), code=Exit.NOT_FOUND) from None
    return Digest(blake3(file.getvalue().encode()).digest())


def gathered(
    told: Told,
    study: Path,
    most_wei: int,
    identity: Path | None,
    data: Path | None,
    network: Path | None,
    key: Path | None,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Copies from the vaults that joined, to the files that the study names; those that are there stay.

    Returns:
        For each vault `here`, `fetched`, or why not: one vault's silence holds up nobody else's.
    """
    joined = {it.participant for it in told.joined}
    came: dict[str, str] = {}
    for it in contributing.study_file(study).contributions:
        if not it.vault or not it.owner or ids.address(it.owner) not in joined:
            continue
        target = study.parent / (it.rows or f"{it.vault}.csv")
        if not it.rows:
            came[it.vault] = "the study's file says no `rows` to write it to"
        elif target.exists():
            came[it.vault] = "here"
        else:
            came[it.vault] = _copied(it, target, most_wei, identity, data, network, key, say)
    return came


def _copied(
    given: Given,
    target: Path,
    most_wei: int,
    identity: Path | None,
    data: Path | None,
    network: Path | None,
    key: Path | None,
    say: Callable[[str], None],
) -> str:
    from clusterai.cli import asking
    from clusterai.cli.datasets import buying, paying
    from clusterai.cli.identity import asked_at
    from clusterai.cli.names import names_at
    from clusterai.cli.reach import vaults_at
    from clusterai.sdk.vaults import ApiError, Listed, Unreachable

    who, names = identity_at(identity), names_at(identity, data, network)

    async def pay(listed: Listed, request: Digest, price_wei: int) -> None:
        await asyncio.to_thread(
            paying.pay, data, network, key, listed.dataset, request, who.address, price_wei
        )

    async def run() -> None:
        async with vaults_at(data, network) as vaults:
            # As the study has it: whatever else is listed under that name.
            wanted = given.vault if given.vault.startswith("0x") else f"{given.owner}/{given.vault}"
            listed, facts = await asking.found(vaults, wanted, names)
            if listed.listing.owner != ids.address(given.owner):
                raise Failure(f"{given.vault} is another owner's than the study says", code=Exit.UNTRUE)
            asking.remember(asked_at(identity), listed.dataset, listed.name)
            await buying.buy(vaults, listed, facts, who, "to score a pot", most_wei, target, (), pay, say)

    try:
        asyncio.run(run())
    except Failure as failure:
        return "; ".join(it for it in (failure.what, failure.why) if it)
    except (ApiError, Unreachable) as error:
        return str(error)
    return "fetched"


def told(found: Found, sent: list[str]) -> dict[str, Any]:
    """Scores as JSON."""
    return {
        "pot": hex0x(Digest(found.scores.pot)),
        "digest": hex0x(found.digest),
        "evidence": hex0x(Digest(found.scores.evidence)),
        "scores": list(map(str, found.scores.scores)),
        "contributors": list(found.contributors),
        "nothing": {checksummed(it.owner): it.why for it in found.left},
        "transactions": sent,
    }
