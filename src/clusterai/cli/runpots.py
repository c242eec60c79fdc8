"""A pot for a federated run: shared by what each vault added on rows that nobody gave, or by rounds; who was named earns nothing.

    study.json: app, requester, vaults ──> digest, in the pot ──> vaults join with their snapshots ──> training ──> lineage.json ──> scores

Nobody saw one vault's update. What the card does say is which vaults' updates were in which sums, which groups of
them broke their bounds, and whom many rounds' groups speak against (`work.training.core.evidence`). Where the study names a metric, the card also says what each
group's sum was worth by it (`train federated --groups --worth`), and what each vault added follows (`audit.core.contribution.runs`). Where it names none, a round counts
the same for everyone in it: then a free rider that wasn't named is paid as those who trained.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from blake3 import blake3
from msgspec import Meta

from clusterai.audit.core.contribution import Added, Seen, added
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


class RunStudy(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="run.2"):
    """What is fixed before the run: which app, who has it run, and by which of the app's metrics it is shared: see `StudyFile.worth`."""

    app: DigestBytes
    requester: AddressBytes
    pot_wei: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    worth: Annotated[str, Meta(max_length=128)] = ""


class Source(msgspec.Struct, frozen=True):
    name: str
    dataset: str
    snapshot: str
    subject: str


class Group(msgspec.Struct, frozen=True):
    summed: tuple[str, ...]
    verdict: str
    worth: dict[str, float] = {}


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

    def scored(self, told: Told, beacon: Callable[[], bytes]) -> Scored:
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
        worths = added_of(card, self._study.worth) if self._study.worth else {}
        for owner, snapshot in told.asked():
            name, why = self._source(card, owner, snapshot)
            if why:
                left.append(Left(owner, why))
                continue
            if self._study.worth:
                mine = worths[name]
                if not mine.score:
                    why = f"what it added isn't surely above nothing: {mine.value:.4g} ± {mine.error:.2g} of {self._study.worth}"
                    left.append(Left(owner, why))
                    continue
                scores[owner] = mine.score
                told_of = {"score": mine.score / UNIT, "error": mine.error, "rounds": rounds[name]}
                counted.append({"owner": checksummed(owner), "vault": name, **told_of})
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
    return RunPot(file, study.parent, RunStudy(app.bundle.digest, requester, pot_wei, file.worth))


def added_of(card: Card, worth: str) -> dict[str, Added]:
    """What each source added, by a metric of the app's own evaluation; a minus before it says that less is better.

    Raises:
        Failure: the card doesn't say enough of it.
    """
    metric, sign = worth.removeprefix("-"), -1 if worth.startswith("-") else 1
    place = {it.subject: at for at, it in enumerate(card.sources)}
    rounds: list[Seen] = []
    for row in card.rounds:
        known = [it for it in row.groups if metric in it.worth] if row.type == "train" else []
        members = tuple(tuple(place[who] for who in it.summed if who in place) for it in known)
        rounds.append(Seen(members, tuple(sign * it.worth[metric] for it in known)))
    found = added(rounds, len(card.sources))
    if found is None:
        raise Failure(
            f"the run doesn't say what each vault added by {metric}",
            f"{sum(len(it.groups) for it in rounds)} groups' sums are known by it, for {len(card.sources)} vaults: it takes three for every two",
            "train federated with --groups and --worth, an evaluate_fn that tells this metric, and more rounds; an app that is done in fewer is to take smaller steps in each",
            Exit.UNTRUE,
        )
    return {it.name: mine for it, mine in zip(card.sources, found, strict=True)}


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
