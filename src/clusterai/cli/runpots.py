"""A pot for a federated run: shared by the rounds of training that a vault took part in; who was named earns nothing.

    study.json: app, requester, vaults ──> digest, in the pot ──> vaults join with their snapshots ──> training ──> lineage.json ──> scores

Nobody saw one vault's update, so nobody can say what it alone was worth. What the card does say is which vaults' updates were in which sums, which groups of
them broke their bounds, and whom many rounds' groups speak against (`work.training.core.evidence`). A round counts the same for everyone in it.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from blake3 import blake3
from msgspec import Meta

from clusterai.audit.core.contribution.neighbours import UNIT
from clusterai.cli import contributing
from clusterai.cli.contributing import Left, StudyFile
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.pots import Scored, Told
from clusterai.protocol import canonical, ids
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.statements import AddressBytes, DigestBytes
from clusterai.protocol.vaults import dataset_id

COUNTED = ("good", "apart")
"""Verdicts on groups whose sums the model took; "apart" is a hint and no proof."""


class RunStudy(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="run.1"):
    """What is fixed before the run: which app, and who has it run."""

    app: DigestBytes
    requester: AddressBytes
    pot_wei: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Source(msgspec.Struct, frozen=True):
    name: str
    dataset: str
    snapshot: str
    subject: str


class Group(msgspec.Struct, frozen=True):
    summed: tuple[str, ...]
    verdict: str


class Row(msgspec.Struct, frozen=True):
    type: str
    summed: tuple[str, ...]
    groups: tuple[Group, ...] = ()


class Accused(msgspec.Struct, frozen=True):
    name: str
    why: str


class Card(msgspec.Struct, frozen=True):
    """Of a lineage card, what scores are made of."""

    app: str
    requester: str
    sources: tuple[Source, ...]
    rounds: tuple[Row, ...]
    named: tuple[Accused, ...] = ()


class RunPot:
    """`pots.Fixed` for a run."""

    def __init__(self, file: StudyFile, folder: Path, study: RunStudy) -> None:
        self._file, self._folder, self._study = file, folder, study
        self.digest = Digest(canonical.digest(study))
        self.pot_wei = study.pot_wei

    def scored(self, told: Told, beacon: bytes) -> Scored:
        """
        Raises:
            Failure: there is no card yet, or it is another run's.
        """
        del beacon  # nothing here is drawn
        place = self._folder / (self._file.lineage or "lineage.json")
        data = contributing.read(place)
        try:
            card = msgspec.json.decode(data, type=Card)
            same = (
                ids.digest(card.app) == self._study.app
                and ids.address(card.requester) == self._study.requester
            )
        except (msgspec.MsgspecError, ids.BadId) as error:
            raise Failure(f"{place} is no lineage card", str(error), code=Exit.USAGE) from None
        if not same:
            raise Failure(f"{place} is of another app, or another requester's", code=Exit.UNTRUE)
        counted: list[dict[str, Any]] = []
        left: list[Left] = []
        scores = dict.fromkeys(map(bytes, told.pot.participants), 0)
        rounds = rounds_of(card)
        for owner, snapshot in told.asked():
            name, why = self._source(card, owner, snapshot)
            if why:
                left.append(Left(owner, why))
                continue
            scores[owner] = rounds[name] * UNIT
            counted.append({"owner": checksummed(owner), "vault": name, "score": float(rounds[name])})
        evidence = Digest(blake3(data).digest())
        return Scored(evidence, tuple(scores.values()), tuple(counted), tuple(left))

    def _source(self, card: Card, owner: Address, snapshot: Digest) -> tuple[str, str]:
        """The vault of a participant in the run, or why it counts for nothing."""
        mine = [it for it in card.sources if it.dataset == hex0x(dataset_id(owner, it.name))]
        if not mine:
            return "", "none of its vaults is in the run"
        if len(mine) > 1:
            return "", "several of its vaults are in the run: one takes part"
        [source] = mine
        accused = [it.why for it in card.named if it.name == source.name]
        if accused:
            return "", f"the run named it: {accused[0]}"
        if source.snapshot != hex0x(snapshot):
            return "", "the run was over other data than it committed to"
        return source.name, ""


def run_pot(study: Path, pot_wei: int) -> RunPot:
    """
    Raises:
        Failure: there is no such app, or nobody is said to have it run.
    """
    from clusterai.cli import training

    file = contributing.study_file(study)
    try:
        requester = ids.address(file.requester)
    except ids.BadId:
        raise Failure(
            f"{study} says not who has the app run",
            '"requester": the address of your identity',
            code=Exit.USAGE,
        ) from None
    app = training.app_at(study.parent / file.app)
    return RunPot(file, study.parent, RunStudy(app.bundle.digest, requester, pot_wei))


def rounds_of(card: Card) -> dict[str, int]:
    """For each source, the rounds of training in which its update was in a sum that the model took.

    Or would have taken but for somebody who was named: those who sat beside him did their work.
    """
    names = {it.subject: it.name for it in card.sources}
    accused = {it.name for it in card.named}
    found = dict.fromkeys(names.values(), 0)
    for row in card.rounds:
        if row.type != "train":
            continue
        there: set[str] = set()
        for group in row.groups or (Group(row.summed, "good"),):
            members = {names[it] for it in group.summed if it in names}
            if group.verdict in COUNTED or members & accused:
                there |= members
        for name in there:
            found[name] += 1
    return found
