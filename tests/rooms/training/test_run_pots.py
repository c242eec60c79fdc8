"""A pot for a federated run: who trains shares it, who skips or poisons is named by the run and earns nothing."""

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from clusterai.audit.core.contribution.neighbours import UNIT
from clusterai.cli import pots, rewarding
from clusterai.cli.failure import Exit, Failure
from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.twin import Refused
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, checksummed
from clusterai.protocol.signing import Key
from tests.contracts.cast import HOTS, PAYER, STRANGER
from tests.contracts.potcast import AMOUNT, WINDOW_S, PotPair
from tests.rooms.training.studies import APP, ME, Near, close_vaults, owner_key
from tests.rooms.training.test_groups import grouped, trained
from tests.rooms.training.test_training_villains import APPS

GATE = HOTS["gate"]


def nothing_is_drawn() -> bytes:
    """A run's scores wait for no beacon: it comes when an epoch of the chain is over, and a short run is over before."""
    raise AssertionError("a run's scores asked for the beacon")


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


class RunPlay:
    """A study of some vaults, and a chain with its pot."""

    def __init__(self, folder: Path, parties: list[Near], app: Path = APP, **more: str) -> None:
        self.file = folder / "study.json"
        shutil.copytree(app, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        self.owners = {it.name: Address(it.vault.owner) for it in parties}
        given = [{"vault": name, "owner": checksummed(owner)} for name, owner in self.owners.items()]
        study: dict[str, Any] = {
            "app": "app",
            "requester": checksummed(ME.address),
            "lineage": "run/lineage.json",
        }
        self.file.write_text(json.dumps(study | more | {"contributions": given}))
        self.pair = PotPair()
        self.pair.populate()
        self.events: list[Event] = []
        brought = [(owner, ZERO_ADDRESS) for owner in self.owners.values()]
        self.pot = pots.opened(
            PAYER.address, GATE.address, self.terms, brought, 0, self.pair.now_s, 100, 100, 0
        )
        self.do(calls.OpenPot(self.pot), PAYER)

    @property
    def terms(self) -> pots.Fixed:
        return rewarding.terms(self.file, AMOUNT)

    @property
    def told(self) -> pots.Told:
        [told] = pots.fold(self.events).values()
        return told

    def do(self, call: calls.Call, who: Key) -> None:
        found = self.pair.do(call, who)
        assert not isinstance(found, Refused), found
        self.events += found

    def joins(self, owner: Key, snapshot: Digest) -> None:
        self.do(calls.JoinPot(self.pot, snapshot), owner)


def test_who_trains_shares_the_pot_and_who_was_named_has_nothing(tmp_path: Path) -> None:
    """Of nine vaults one poisons, one joined with other data, one never joined: the six others have the pot, for the rounds they trained."""
    parties = grouped(tmp_path, 9, v3="boost")
    play = RunPlay(tmp_path, parties)
    for it in parties:
        if it.name != "v8":
            other = Digest(bytes([1]) * 32)
            play.joins(owner_key(it.name), other if it.name == "v7" else it.vault.snapshot)
    trained(parties, tmp_path / "run", 5, [])
    found = pots.found(play.told, play.terms, nothing_is_drawn)
    why = {it.owner: it.why for it in found.left}
    assert set(why) == {play.owners["v3"], play.owners["v7"]}
    assert "named" in why[play.owners["v3"]]
    assert "other data" in why[play.owners["v7"]]
    scores = dict(zip(play.pot.participants, found.scores.scores, strict=True))
    paid = {name for name, owner in play.owners.items() if scores[owner]}
    assert paid == {"v0", "v1", "v2", "v4", "v5", "v6"}
    assert {scores[play.owners[name]] for name in paid} == {5 * UNIT}, "also who sat beside a poisoner"
    play.pair.advance(101)
    play.do(calls.ScorePot(play.pot, Digest(found.scores.evidence), found.scores.scores), GATE)
    play.pair.advance(WINDOW_S + 1)
    play.do(pots.closing(play.told, None, play.pair.now_s, WINDOW_S), STRANGER)
    assert {who for who, _ in play.told.shares} == {play.owners[name] for name in paid}
    assert sum(wei for _, wei in play.told.shares) == AMOUNT
    card = json.loads((tmp_path / "run" / "lineage.json").read_text())
    lie = card | {"requester": checksummed(GATE.address)}
    (tmp_path / "run" / "lineage.json").write_text(json.dumps(lie))
    with pytest.raises(Failure, match="another requester's") as failure:
        pots.found(play.told, play.terms, nothing_is_drawn)
    assert failure.value.code == Exit.UNTRUE


def test_a_free_rider_that_is_not_named_earns_nothing_where_the_pot_is_for_what_was_added(
    tmp_path: Path,
) -> None:
    """Of nine vaults two skip, too few rounds to name them: what the seven others added on rows that nobody gave is paid."""
    app = APPS / "held"
    parties = grouped(tmp_path, 9, app, v3="skips", v5="skips")
    play = RunPlay(tmp_path, parties, app, worth="-loss")
    for it in parties:
        play.joins(owner_key(it.name), it.vault.snapshot)
    outcome = trained(parties, tmp_path / "run", 5, [], app, worth=True)
    assert outcome.named == ()
    found = pots.found(play.told, play.terms, nothing_is_drawn)
    why = {it.owner: it.why for it in found.left}
    assert set(why) == {play.owners["v3"], play.owners["v5"]}
    assert all("surely above nothing" in it for it in why.values())
    scores = dict(zip(play.pot.participants, found.scores.scores, strict=True))
    paid = [scores[owner] for name, owner in play.owners.items() if name not in ("v3", "v5")]
    assert min(paid) > max(paid) / 2 > 0
    assert not any(scores[play.owners[name]] for name in ("v3", "v5"))
    assert pots.found(play.told, play.terms, nothing_is_drawn) == found, (
        "whoever has the card comes to the same"
    )


def test_a_pot_for_what_was_added_is_not_scored_by_a_run_that_does_not_say(tmp_path: Path) -> None:
    """One sum of all, or groups that nobody evaluated: there is nothing to share by, and the pot goes back."""
    app = APPS / "held"
    parties = grouped(tmp_path, 9, app)
    play = RunPlay(tmp_path, parties, app, worth="accuracy")
    play.joins(owner_key("v0"), parties[0].vault.snapshot)
    trained(parties, tmp_path / "run", 1, [], app)
    with pytest.raises(Failure, match="what each vault added by accuracy") as failure:
        pots.found(play.told, play.terms, nothing_is_drawn)
    assert failure.value.code == Exit.UNTRUE


def test_a_run_of_too_few_rounds_says_so_before_they_are_paid(tmp_path: Path) -> None:
    """What nine vaults in three groups added isn't told by four rounds: whoever is done in fewer has to take smaller steps."""
    app = APPS / "held"
    parties = grouped(tmp_path, 9, app)
    play = RunPlay(tmp_path, parties, app, worth="-loss")
    play.joins(owner_key("v0"), parties[0].vault.snapshot)
    told: list[dict[str, Any]] = []
    trained(parties, tmp_path / "run", 1, told, app, worth=True)
    first = next(it for it in told if it["event"] in ("notice", "trained"))
    assert first["why"].startswith("5 rounds are the least")
    with pytest.raises(Failure, match="what each vault added by loss"):
        pots.found(play.told, play.terms, nothing_is_drawn)
