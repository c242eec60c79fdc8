"""Pots as the command line tells them, over what the contract's twin told; and what it refuses before anything is sent."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from clusterai.cli import pots, rewarding
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.main import run
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.rewards import BOND_BPS
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, checksummed, hex0x
from clusterai.protocol.keccak import keccak
from clusterai.protocol.pots import Pot
from clusterai.protocol.signing import Key
from tests.contracts.cast import EVERYONE, HOTS, PAYER, STRANGER
from tests.contracts.potcast import AMOUNT, WINDOW_S, PotPair

NAMES = ("ann", "bob", "stranger", "deployer")
GATE = HOTS["gate"]
BEACON = b"\x05" * 32


def table(path: Path, seed: int, turned: bool = False, count: int = 100) -> bytes:
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("id", "a", "kind", "b"))
        for at in range(count):
            kind = int(rng.integers(0, 2))
            a, b = (3 * kind + rng.normal(0, 1, 2)).tolist()
            out.writerow((at, a, ("no", "yes")[kind != turned], b))
    return path.read_bytes()


class Play:
    """A study in a folder, and a chain on which its pot is put up; what the chain told so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "study.json"
        table(folder / "held.csv", 0, count=200)
        self.tables = {
            name: table(folder / f"{name}.csv", at, name == "bob") for at, name in enumerate(NAMES, 1)
        }
        given = [{"owner": checksummed(EVERYONE[name].address), "rows": f"{name}.csv"} for name in NAMES]
        told: dict[str, Any] = {
            "held_out": "held.csv",
            "label": "kind",
            "features": ["a", "b"],
            "quality": 0.25,
        }
        self.file.write_text(json.dumps(told | {"contributions": given}))
        self.pair = PotPair()
        self.pair.populate()
        self.events: list[Event] = []
        self.pot = self.opened()
        self.do(calls.OpenPot(self.pot), PAYER)

    @property
    def terms(self) -> pots.Fixed:
        return rewarding.terms(self.file, AMOUNT)

    @property
    def told(self) -> pots.Told:
        [told] = pots.fold(self.events).values()
        return told

    def opened(self, evaluator: Address = GATE.address, **by: str) -> Pot:
        brought = [
            (EVERYONE[name].address, EVERYONE[by[name]].address if name in by else ZERO_ADDRESS)
            for name in NAMES
        ]
        return pots.opened(PAYER.address, evaluator, self.terms, brought, 0, self.pair.now_s, 100, 100, 1_000)

    def do(self, call: calls.Call, who: Key) -> None:
        found = self.pair.do(call, who)
        assert not isinstance(found, Refused), found
        self.events += found

    def join(self, *names: str, **rows: bytes) -> None:
        for name in names:
            digest = Digest(blake3(rows.get(name, self.tables[name])).digest())
            self.do(calls.JoinPot(self.pot, digest), EVERYONE[name])

    def found(self) -> pots.Found:
        return pots.found(self.told, self.terms, lambda: BEACON)

    def score(self) -> None:
        scores = self.found().scores
        self.pair.advance(101)
        self.do(calls.ScorePot(self.pot, Digest(scores.evidence), scores.scores), GATE)

    def of(self, name: str) -> int:
        at = self.pot.participants.index(EVERYONE[name].address)
        return self.found().scores.scores[at]

    def left(self) -> dict[str, str]:
        names = {EVERYONE[name].address: name for name in NAMES}
        return {names[it.owner]: it.why for it in self.found().left}


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def test_a_pot_is_told_from_its_first_to_its_last_event(play: Play) -> None:
    """Opened, joined, scored, closed: each stage with its clock, who joined where, and what each earned."""
    assert (play.told.stage, play.told.by_s, play.told.round) == ("open", play.pot.score_by_s, None)
    play.join("stranger", "ann", "bob")
    shown = {it["owner"]: it for it in pots.shown(play.told)["participants"]}
    assert [shown[checksummed(EVERYONE[name].address)]["place"] for name in NAMES] == [2, 3, 1, 0]
    play.score()
    assert play.told.stage == "scored"
    assert play.told.standing == play.found().digest
    with pytest.raises(Failure, match="scored"):
        pots.closing(play.told, None, play.told.by_s, WINDOW_S)
    play.pair.advance(WINDOW_S + 1)
    play.do(pots.closing(play.told, None, play.pair.now_s, WINDOW_S), STRANGER)
    assert play.told.stage == "closed"
    assert {who for who, _ in play.told.shares} == {EVERYONE[name].address for name in ("ann", "stranger")}
    assert sum(wei for _, wei in play.told.shares) == AMOUNT
    with pytest.raises(Failure, match="closed"):
        pots.closing(play.told, None, play.pair.now_s, WINDOW_S)


def test_who_gives_something_else_counts_for_nothing(play: Play) -> None:
    """Another table than was committed to, none, or one that is no table: nothing for that participant, and all the more for the others."""
    play.join("ann", "deployer", stranger=b"id,a,kind,b\n")
    (play.folder / "stranger.csv").write_bytes(b"\xff\x00not a table")
    play.join("stranger", stranger=b"\xff\x00not a table")
    play.join("bob", bob=b"promised")
    (play.folder / "deployer.csv").unlink()
    left = play.left()
    assert set(left) == {"stranger", "bob", "deployer"}
    assert "no table" in left["stranger"]
    assert "another table" in left["bob"]
    assert "gave no table" in left["deployer"]
    assert [play.of(name) > 0 for name in NAMES] == [True, False, False, False]


@pytest.mark.parametrize("first", ["ann", "stranger"])
def test_of_two_with_the_same_rows_the_first_to_join_earns(play: Play, first: str) -> None:
    """The order of joining on chain decides, and not the order in the study's file."""
    table(play.folder / "stranger.csv", 1)
    same = {"stranger": play.tables["ann"]}
    second = "stranger" if first == "ann" else "ann"
    play.join(first, second, **same)
    assert play.of(first) > 0
    assert play.of(second) == 0


def test_the_study_is_what_the_pot_was_put_up_for(play: Play) -> None:
    """Other held-out rows, another scale of them, another label, weight or radius: an evaluator that changes any isn't believed."""
    play.join("ann")
    assert play.found()
    kept = (play.folder / "held.csv").read_bytes(), play.file.read_bytes()
    file = json.loads(kept[1])
    scaled = b"\r\n".join(
        line if not at else b",".join(it if n not in (1, 3) else str(7 * float(it)).encode() for n, it in enumerate(line.split(b",")))
        for at, line in enumerate(kept[0].splitlines())
    )  # fmt: skip
    for held, changes in (
        (scaled, {}),
        (kept[0], {"quality": 0.5}),
        (kept[0], {"neighbours": 4}),
        (kept[0], {"radius_steps": 1}),
        (kept[0], {"features": ["b", "a"]}),
        (kept[0], {"features": ["a"]}),
    ):
        (play.folder / "held.csv").write_bytes(held)
        play.file.write_text(json.dumps(file | changes))
        with pytest.raises(Failure, match="aren't the pot's study") as failure:
            play.found()
        assert failure.value.code == Exit.UNTRUE
    (play.folder / "held.csv").write_bytes(kept[0])
    play.file.write_bytes(kept[1])
    assert play.found()


def test_the_panels_scores_have_to_be_shown(play: Play) -> None:
    """Where false scores were replaced, whoever closes makes the right ones again; the false ones pay nobody."""
    play.join("ann", "bob")
    play.pair.advance(101)
    play.do(calls.ScorePot(play.pot, ZERO_DIGEST, (0, 0, 0, 9)), GATE)
    play.do(calls.ContestPot(play.pot), EVERYONE["ann"])
    right = play.found()
    for name in ("val", "vic"):
        play.do(calls.VotePot(play.pot, right.digest), HOTS[name])
    assert (play.told.stage, play.told.standing) == ("decided", right.digest)
    with pytest.raises(Failure, match="other scores"):
        pots.closing(play.told, None, play.pair.now_s, WINDOW_S)
    play.do(pots.closing(play.told, right.scores, play.pair.now_s, WINDOW_S), STRANGER)
    assert play.told.shares == ((EVERYONE["ann"].address, AMOUNT),)


def test_a_pot_that_nobody_scored_is_closed_without_scores(play: Play) -> None:
    """It goes back to its payer once nobody can ask the panel any more."""
    play.join("ann")
    end_s = play.pot.score_by_s + WINDOW_S
    with pytest.raises(Failure) as failure:
        pots.closing(play.told, None, end_s, WINDOW_S)
    assert "in 1 s" in failure.value.why
    play.pair.now_s = end_s + 1
    play.do(pots.closing(play.told, None, play.pair.now_s, WINDOW_S), STRANGER)
    assert play.told.refunded_wei == AMOUNT


def test_what_the_contract_would_refuse_is_refused_before(play: Play) -> None:
    """An evaluator that takes part, and who is named as having brought itself."""
    with pytest.raises(Failure, match="takes part"):
        play.opened(evaluator=EVERYONE["ann"].address)
    with pytest.raises(Failure, match="brought it itself"):
        play.opened(ann="ann")
    assert play.opened(ann="bob").participants == tuple(sorted(play.pot.participants))


def test_the_bond_is_the_contracts() -> None:
    """What the command approves is what the contract takes."""
    assert pots.BOND_BPS == BOND_BPS


def test_an_id_names_one_pot(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """By how it begins, as long as no other begins so."""

    def looked(_: Any) -> list[pots.Told]:
        return [play.told]

    monkeypatch.setattr(pots, "look", looked)
    network: Any = None
    assert pots.one(network, hex0x(play.told.id)[:10]) == play.told
    with pytest.raises(Failure, match="names no pot"):
        pots.one(network, hex0x(keccak(b"other"))[:10])


@pytest.mark.parametrize("where", ["../elsewhere.csv", "/etc/hostname", "a/../../b.csv", "a\0b"])
@pytest.mark.parametrize("what", ["held_out", "rows"])
def test_a_study_reaches_no_further_than_its_folder(play: Play, what: str, where: str) -> None:
    """A payer's file that names a path elsewhere, to have it read or a copy written there, is refused."""
    file = json.loads(play.file.read_text())
    if what == "rows":
        file["contributions"][0]["rows"] = where
    else:
        file[what] = where
    play.file.write_text(json.dumps(file))
    with pytest.raises(Failure) as failure:
        _ = play.terms
    assert (failure.value.code, "own folder" in failure.value.why) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    "words",
    [
        ("join", "0x12"),
        ("join", "0x12", "--rows", "a.csv", "--vault", "b"),
        ("join", "0x12", "--rows", "a.csv", "--stays"),
        ("vote", "0x12"),
        ("vote", "0x12", "study.json", "--none"),
        ("open", "study.json", "--amount", "1", "--referral", "21"),
    ],
)
def test_a_command_that_says_two_things_or_nothing_is_refused(words: tuple[str, ...]) -> None:
    """With the exit code of a wrong command line, and before anything is asked of a chain."""
    assert run(["data", "reward", *words]) == Exit.USAGE
