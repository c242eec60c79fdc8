"""Whether a run's sums are what its lineage card says: by the transcripts that its requester signed and left in the run's folder."""

import re
from collections import Counter
from pathlib import Path

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import ids
from clusterai.protocol.canonical import Malformed, decode
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.signing import signed_by
from clusterai.vault.adapters.masking import Libraries
from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.proof import MAX_PROOF_BYTES, Proof, proof_fault
from clusterai.vault.core.secagg.transcript import transcript_digest
from clusterai.work.training.adapters.hosting import purpose

WHOLE = "ask whoever trained for the folder as the run left it: lineage.json and sums"


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


class Named(msgspec.Struct, frozen=True):
    """A vault that the run went on without, and after which round."""

    name: str
    after: int
    why: str


class Card(msgspec.Struct, frozen=True):
    run: str
    requester: str
    sources: tuple[Source, ...]
    rounds: tuple[Row, ...]
    sums: str = ""
    named: tuple[Named, ...] = ()


class Sum(msgspec.Struct, frozen=True):
    """One sum of the card, and what is wrong with it; nothing where it is what the card says.

    Attributes:
        signer: whose signature is under its transcript; empty where there is none that holds.
    """

    round: int
    group: int
    vaults: tuple[str, ...]
    fault: str
    signer: str


class Checked(msgspec.Struct, frozen=True):
    """A run's sums, and whom the run itself found cheating: that is the requester's word, and nothing here proves it."""

    sums: tuple[Sum, ...]
    named: tuple[Named, ...]

    @property
    def false(self) -> list[Sum]:
        return [it for it in self.sums if it.fault]


def checked(folder: Path) -> Checked:
    """Every sum of a run.

    Raises:
        Failure: it can't be checked: there is no card, or no sum, or no transcript.
    """
    place = folder / "lineage.json"
    try:
        card = msgspec.json.decode(place.read_bytes(), type=Card)
    except OSError as error:
        raise Failure(f"{place} can't be read", error.strerror or "", WHOLE, Exit.NOT_FOUND) from None
    except msgspec.MsgspecError as error:
        raise Failure(f"{place} is no lineage card", str(error), WHOLE, Exit.USAGE) from None
    if card.sums == "plain":
        raise Failure(
            "this run has no transcripts",
            "its sums were taken without secure aggregation",
            "nobody can check them; a run with --secure-aggregation leaves what can be",
        )
    if not card.rounds:
        raise Failure(
            "this run has no sum yet", "its card names no round", "train on: the same command goes on"
        )
    if not any((folder / "sums").glob("*")):
        raise Failure(f"{folder / 'sums'} holds no transcript", "", WHOLE, Exit.NOT_FOUND)
    return Checked(tuple(found for row in card.rounds for found in _row(folder, card, row)), card.named)


def _row(folder: Path, card: Card, row: Row) -> list[Sum]:
    groups = row.groups or (Group(row.summed, row.transcript),)
    often = Counter(subject for it in groups for subject in it.summed)
    found: list[Sum] = []
    for at, group in enumerate(groups):
        proof = _proof_of(folder, row.number, group.transcript)
        names = tuple(it.name for it in card.sources if it.subject in group.summed)
        fault = _fault(card, row, group, proof)
        if not fault and any(often[it] > 1 for it in group.summed):
            fault = "a vault of it is counted twice in this round"
        found.append(Sum(row.number, at, names, fault, _signer(proof)))
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


def _signer(proof: Proof | None) -> str:
    if proof is None:
        return ""
    told = proof.transcript
    server = Address(told.spec.server)
    return hex0x(server) if signed_by(server, transcript_digest(told), told.signature) else ""


def _fault(card: Card, row: Row, group: Group, proof: Proof | None) -> str:
    if proof is None:
        return "no transcript of it is here, or another than the card names"
    spec = proof.transcript.spec
    try:
        server, run = ids.address(card.requester), ids.digest(card.run)
        names = {ids.address(it.member): it.name for it in card.sources}
        members = {ids.address(it.member) for it in card.sources if it.subject in group.summed}
    except ids.BadId as error:
        return f"the card names somebody by no id: {error}"
    if spec.server != server or spec.purpose != purpose(Digest(run), row.number):
        return "it is a sum of another run, another round, or another requester's"
    everyone = graph.members(spec) if spec.group < spec.groups else ()
    if any(claim.member >= len(everyone) for claim in proof.transcript.roll.claims):
        return "its roll names members that this sum hasn't"
    weights = proof.transcript.weights
    if set(weights) != members or len(group.summed) != len(members):
        left_out = ", ".join(sorted(names[it] for it in members - set(weights)))
        put_in = ", ".join(sorted(names.get(it, hex0x(it)) for it in set(weights) - members))
        more = f"; {left_out} isn't in it" if left_out else ""
        more += f"; {put_in} is" if put_in else ""
        return f"the card names others than the vaults that signed for this sum{more}"
    for member, weight in weights.items():
        if weight != 1:
            return f"{names[member]} is weighed {weight} times, not once"
    wrong = proof_fault(proof, Libraries())
    if wrong is None:
        return ""

    def name(number: re.Match[str]) -> str:
        at = int(number[1])
        return names.get(everyone[at], number[0]) if at < len(everyone) else number[0]

    return f"{wrong.code}: {re.sub(r'member ([0-9]+)', name, wrong.detail)}"
