"""Whether a run's sums are what its lineage card says: by the transcripts that its requester signed and left in the run's folder."""

from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import ids
from clusterai.protocol.canonical import Malformed, decode
from clusterai.protocol.ids import Digest, hex0x
from clusterai.vault.adapters.masking import Libraries
from clusterai.vault.core.secagg.proof import MAX_PROOF_BYTES, Proof, proof_fault
from clusterai.vault.core.secagg.transcript import transcript_digest
from clusterai.work.training.adapters.hosting import purpose


class Source(msgspec.Struct, frozen=True):
    name: str
    subject: str
    member: str


class Group(msgspec.Struct, frozen=True):
    summed: tuple[str, ...]
    transcript: str


class Row(msgspec.Struct, frozen=True):
    number: int
    summed: tuple[str, ...]
    transcript: str
    groups: tuple[Group, ...] = ()


class Card(msgspec.Struct, frozen=True):
    run: str
    requester: str
    sources: tuple[Source, ...]
    rounds: tuple[Row, ...]
    sums: str = ""


class Sum(msgspec.Struct, frozen=True):
    """One sum of the card, and what is wrong with it; nothing where it is what the card says."""

    round: int
    group: int
    vaults: tuple[str, ...]
    fault: str


def checked(folder: Path) -> list[Sum]:
    """Every sum of a run.

    Raises:
        Failure: there is no card, or its sums weren't masked.
    """
    place = folder / "lineage.json"
    try:
        card = msgspec.json.decode(place.read_bytes(), type=Card)
    except OSError as error:
        raise Failure(f"{place} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    except msgspec.MsgspecError as error:
        raise Failure(f"{place} is no lineage card", str(error), code=Exit.USAGE) from None
    if card.sums == "plain":
        raise Failure("this run has no transcripts", "its sums were taken without secure aggregation")
    found: list[Sum] = []
    for row in card.rounds:
        for at, group in enumerate(row.groups or (Group(row.summed, row.transcript),)):
            proof = _proof_of(folder, row.number, group.transcript)
            names = tuple(it.name for it in card.sources if it.subject in group.summed)
            found.append(Sum(row.number, at, names, _fault(card, row, group, proof)))
    return found


def _proof_of(folder: Path, number: int, transcript: str) -> Proof | None:
    """By its digest: a group that came to nothing has no place in the card."""
    for place in sorted((folder / "sums").glob(f"{number:04}-*")):
        try:
            proof = decode(place.read_bytes(), Proof, MAX_PROOF_BYTES)
        except (OSError, Malformed):
            continue
        if hex0x(transcript_digest(proof.transcript)) == transcript:
            return proof
    return None


def _fault(card: Card, row: Row, group: Group, proof: Proof | None) -> str:
    if proof is None:
        return "no transcript of it is here, or another than the card names"
    spec: Any = proof.transcript.spec
    try:
        server, run = ids.address(card.requester), ids.digest(card.run)
        members = {ids.address(it.member) for it in card.sources if it.subject in group.summed}
    except ids.BadId as error:
        return f"the card names somebody by no id: {error}"
    if spec.server != server or spec.purpose != purpose(Digest(run), row.number):
        return "it is a sum of another run, another round, or another requester's"
    weights = proof.transcript.weights
    if set(weights) != members:
        return "the card names others than the vaults that signed for this sum"
    if set(weights.values()) != {1}:
        return "a vault is weighed otherwise than once"
    wrong = proof_fault(proof, Libraries())
    return "" if wrong is None else f"{wrong.code}: {wrong.detail}"
