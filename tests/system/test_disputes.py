"""Disputes between processes: a provider that lies about a job, an auditor that accuses falsely, and whatever dies meanwhile.

In CI, one round of `kill -9` is played: at each step of a dispute one process dies, each of the five kinds of process
twice or once. `CLUSTERAI_EVERY=1` plays all five rounds by hand, after which each kind has died at each step. Processes die as
soon as a move is seen on chain, within a tenth of a second; at which instruction of theirs is left to chance.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterai.cli.failure import Exit
from clusterai.cli.local.folder import CHEAT
from clusterai.ledger.core import events
from clusterai.protocol.bisection import cut
from clusterai.protocol.ids import hex0x
from clusterai.protocol.leases import DisputeReason
from clusterai.protocol.money import WEI_PER_TOKEN
from tests.system import gauntlet
from tests.system.falseaccuser import NAME
from tests.system.gauntlet import Step
from tests.system.onchain import Onchain, kinds
from tests.system.running import Network, until

pytestmark = pytest.mark.system

STAKE_WEI = 1_000 * WEI_PER_TOKEN
ROOT = Path(__file__).parents[2]
MODULE = ROOT / "examples" / "jobs" / "primes.wasm"
TUTORIAL = ROOT / "docs" / "tutorials" / "catch-a-cheat.md"
ACCUSED = f"""
name: {NAME}
wasm: {MODULE}
args: [16]
outputs: [primes.txt]
segments: 8
steps: 4
fuel: 160000000
resources: {{memory: 16MB, disk: 16MB, time: 1m}}
"""
DISPUTE = (
    Step("contested", events.AuditContested),
    Step("opened", events.DisputeOpened),
    Step("asserted", events.TraceAsserted),
    Step("selected", events.RangeSelected),
    Step("asserted again", events.TraceAsserted, 3),
    Step("selected again", events.RangeSelected, 4),
    Step("referees drawn", events.RefereesDrawn),
    Step("one sealed", events.RefereeCommitted),
    Step("all sealed", events.RefereesSealed),
    Step("one revealed", events.RefereeRevealed),
)
VICTIMS = ("provider", "accuser", "referee", "chain", "gateway")
ROUNDS = gauntlet.rounds(DISPUTE, VICTIMS)
NODES = 3 + len(ROUNDS)
"""An honest one must be left when all liars are barred."""


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network whose validators accuse one job falsely, whoever of them is drawn."""
    running = Network(
        tmp_path_factory.mktemp("court") / "data",
        nodes=NODES,
        validators=4,
        program="tests.system.villainous",
    )
    try:
        yield running.up()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def onchain(court: Network) -> Iterator[Onchain]:
    following = Onchain(court)
    yield following
    following.close()


@pytest.fixture(scope="module")
def accused(court: Network, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job that an honest provider does, and that the first auditor will accuse. It goes on beside all else."""
    job = tmp_path_factory.mktemp("accused") / "job.yaml"
    job.write_text(ACCUSED)
    submitted = court.told("run", str(job), "--yes", "--detach")
    until("it to be done", lambda: court.told("jobs", "show", submitted["id"])["tasks"][0]["output"])
    return submitted


@pytest.fixture(scope="module")
def demonstration(court: Network, accused: dict[str, Any]) -> dict[str, Any]:
    """`clusterai demo cheat --job`, with whoever isn't needed."""
    return court.told("demo", "cheat", "--job", "--yes", "--node", some_liar(court, accused))


def some_liar(court: Network, accused: dict[str, Any]) -> str:
    """A node that doesn't lie yet, and isn't the one whose honesty is needed."""
    honest = court.service_of(verified(court, accused["id"])["provider"])
    nodes = [name for name, service in court.services().items() if service["kind"] == "node"]
    return next(name for name in nodes if name != honest and not (court.data / name / CHEAT).exists())


def verified(court: Network, job: str) -> dict[str, Any]:
    (found,) = court.told("job", "verify", job)["leases"]
    return found


def test_the_tutorial_shows_these_commands(
    court: Network, accused: dict[str, Any], demonstration: dict[str, Any]
):
    """What `catch-a-cheat` tells to type is what runs here, and its jobs' stories can be read."""
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    typed = [line for block in blocks for line in block.splitlines()]
    assert typed == [
        "clusterai up --validators 4",
        "cd examples/jobs",
        "clusterai run primes.yaml",
        "clusterai job verify 0x…",
        "clusterai demo cheat --job",
        "clusterai job verify 0x…",
        "clusterai demo restore",
    ]
    shown = court.cli("job", "verify", demonstration["job"])
    assert shown.returncode == Exit.UNTRUE
    for word in ("auditor revealed", "disputed", "selected", "referees sealed", "slashed", "FRAUD"):
        assert word in shown.stdout
    assert court.cli("job", "verify", accused["id"]).returncode == Exit.OK


def test_a_liar_is_led_to_its_lie_and_convicted(
    court: Network, onchain: Onchain, demonstration: dict[str, Any]
):
    """Two auditors differ, the first disputes, the parts narrow down to the last step, referees run it: fraud."""
    story = demonstration
    onchain.until(story["lease"], events.LeaseClosed)
    told = onchain.of(story["lease"])
    opened = next(event for event in told if isinstance(event, events.DisputeOpened))
    ended = next(event for event in told if isinstance(event, events.DisputeEnded))
    low, high, rounds = 0, opened.steps, 0
    while high - low > 1:
        low, high = cut(low, high)[-2:]
        rounds += 1
    print(f"{opened.steps} steps: {rounds} rounds; caught {story['seconds']} s after the job was asked for")
    assert story["caught"]
    assert story["rounds"] == rounds >= 5, "it defends its lie for as long as there is a part left"
    assert [event.high for event in told if isinstance(event, events.RangeSelected)][-1] == opened.steps
    assert (ended.winner, ended.reason) == (opened.accuser, DisputeReason.REFEREES)
    assert story["answer"] != story["right"]
    assert story["slashed_wei"] == STAKE_WEI
    assert story["burned_wei"] == story["bounty_wei"] == STAKE_WEI // 2
    (task,) = court.told("jobs", "show", story["job"])["tasks"]
    assert task["reason"] == "FRAUD"
    assert task["paid_wei"] == 0
    assert task["refunded_wei"] >= task["total_wei"], "all but the auditors' fee"


def test_its_story_tells_every_move(court: Network, onchain: Onchain, demonstration: dict[str, Any]):
    """`job verify` shows all that the chain said of the lease, in its order."""
    told = verified(court, demonstration["job"])
    at_s = {step["what"]: step["at_s"] for step in told["steps"]}
    print(f"judged in {at_s['closed'] - at_s['mismatched']} s")
    assert (told["verdict"], told["reason"]) == ("fraud", "FRAUD")
    names = {
        events.LeaseOpened: "opened",
        events.LeaseAccepted: "accepted",
        events.LeaseCommitted: "committed",
        events.LeaseDrawn: "drawn",
        events.AuditorDrawn: "auditor_drawn",
        events.AuditCommitted: "auditor_committed",
        events.SegmentShown: "segment_opened",
        events.AuditRevealed: "auditor_revealed",
        events.AuditContested: "mismatched",
        events.DisputeOpened: "disputed",
        events.TraceAsserted: "trace",
        events.RangeSelected: "selected",
        events.RefereesDrawn: "referees_drawn",
        events.RefereeCommitted: "referee_committed",
        events.RefereesSealed: "referees_sealed",
        events.RefereeRevealed: "referee_revealed",
        events.DisputeEnded: "dispute_ended",
        events.LeaseClosed: "closed",
    }
    moves = [names[type(event)] for event in onchain.of(demonstration["lease"])]
    assert [step["what"] for step in told["steps"]] == [*moves, "slashed"]
    assert set(names.values()) == set(moves)


@pytest.mark.parametrize("victims", ROUNDS, ids=lambda victims: f"first-{victims[0]}")
def test_a_dispute_survives_what_dies_at_each_of_its_steps(
    court: Network, onchain: Onchain, accused: dict[str, Any], victims: list[str]
):
    """`kill -9` as soon as each move is seen: the liar is convicted all the same, in one dispute, and never by its clock."""
    began_s = time.monotonic()
    known = {event.lease for event in onchain.told if isinstance(event, events.LeaseOpened)}
    liar = some_liar(court, accused)
    demo = court.started("demo", "cheat", "--job", "--yes", "--json", "--node", liar, "--deadline", "300")
    opened = until(
        "the liar's lease",
        lambda: next(
            (it for it in onchain.told if isinstance(it, events.LeaseOpened) and it.lease not in known), None
        ),
    )
    lease = hex0x(opened.lease)

    def process(victim: str) -> str:
        told = onchain.of(lease)
        match victim:
            case "provider":
                return court.service_of(hex0x(opened.provider))
            case "accuser":
                # Before there is a dispute, the auditor that may begin it.
                (accuser, *_) = [it.accuser for it in told if isinstance(it, events.AuditContested)]
                return court.service_of(hex0x(accuser))
            case "referee":
                drawn = [it.referees[-1] for it in told if isinstance(it, events.RefereesDrawn)]
                accuser = next(it.accuser for it in told if isinstance(it, events.AuditContested))
                others = [it for it in panel(court) if it != hex0x(accuser)]
                return court.service_of(hex0x(drawn[-1]) if drawn else others[0])
            case _:
                return victim

    killed = gauntlet.run(court, onchain, lease, DISPUTE, victims, process)
    onchain.until(lease, events.DisputeEnded)
    onchain.until(lease, events.LeaseClosed)
    print(f"{time.monotonic() - began_s:.1f} s; " + ", ".join(f"{it.process} at {it.step}" for it in killed))
    out, err = demo.communicate(timeout=240)
    assert demo.returncode == 0, err
    # Whoever comes next asks the gateway, which may have been the last to die.
    until("the gateway", lambda: court.cli("job", "verify", accused["id"], "--json").stdout)
    story = json.loads(out)
    told = onchain.of(lease)
    assert kinds(told).count("DisputeOpened") == kinds(told).count("DisputeEnded") == 1
    (ended,) = [event for event in told if isinstance(event, events.DisputeEnded)]
    assert ended.reason == DisputeReason.REFEREES, "nobody lost by its clock"
    assert (story["caught"], story["slashed_wei"]) == (True, STAKE_WEI)


def test_a_false_accuser_pays_the_provider(
    court: Network, onchain: Onchain, accused: dict[str, Any], demonstration: dict[str, Any]
):
    """It goes on to the end and loses both its bonds to the provider, which is paid; all else is where it was put from."""
    until("the accused lease to be closed", lambda: verified(court, accused["id"])["reason"])
    lease = verified(court, accused["id"])
    assert (lease["reason"], lease["verdict"]) == ("COMPLETED", "matched")
    told = onchain.of(lease["lease"])
    (opened,) = [event for event in told if isinstance(event, events.DisputeOpened)]
    (ended,) = [event for event in told if isinstance(event, events.DisputeEnded)]
    assert hex0x(ended.winner) == lease["provider"].lower()
    assert ended.reason == DisputeReason.REFEREES
    (task,) = court.told("jobs", "show", accused["id"])["tasks"]
    assert task["paid_wei"] > 0
    onchain.audit(vested=True)
    contracts, moved = onchain.manifest.contracts, onchain.moved()
    accuser = onchain.hot_of(opened.accuser)
    for contract in (contracts.audits, contracts.disputes):
        lost = {who: net for who, net in moved[contract].items() if net}
        assert lost.keys() == {accuser, ended.winner}, "every other deposit is back with its owner"
        assert lost[ended.winner] == -lost[accuser] > 0


def test_all_liars_may_start_over(court: Network, demonstration: dict[str, Any]):
    """`demo restore` gives the convicted nodes new identities, and they serve."""
    restored = court.told("demo", "restore")["restored"]
    assert demonstration["plan"]["node"] in restored
    assert len(restored) == 1 + len(ROUNDS)
    court.until_serving(NODES)


def panel(court: Network) -> list[str]:
    return [
        json.loads((court.data / name / "config.json").read_bytes())["owner"]
        for name, service in court.services().items()
        if service["kind"] == "validator"
    ]
