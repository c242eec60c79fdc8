"""What a renter is told of rentals, and what is kept of them: states, reasons, warnings, steps, files."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from clusterai.cli.failure import Failure
from clusterai.cli.renting import show, wait
from clusterai.cli.renting.folder import KeeperState, RentalFolder, unheld
from clusterai.sdk import ApiError, Unreachable
from clusterai.sdk.rentals import Rentals
from clusterai.sdk.rentalshapes import Rental, RentalNote
from tests.rooms.renting.told import LEASE, NOW_S, machine, rental


def shown(
    capsys: pytest.CaptureFixture[str], it: Rental, keeper: KeeperState | None = None
) -> tuple[str, str]:
    show.rental(it, keeper, NOW_S)
    said = capsys.readouterr()
    return said.out, said.err


def test_what_was_proven_and_paid_is_told(capsys: pytest.CaptureFixture[str]):
    """Of each machine and of all; how its time is proven, and for how long the money lasts."""
    machines = [machine(0), machine(1, generation=2, proof="unmeasured", proven_s=0.0)]
    out, err = shown(capsys, rental(machines))
    assert "0.05 CLAI for 1 min 30 s of machines" in out
    assert "by its sentinel" in out
    assert "as it passed" in out
    assert "ready (the 3rd here)" in out
    assert "mesh 7 ms, ray 900 ms" in out
    assert "2 h" in out
    assert err == ""


@pytest.mark.parametrize(("why", "words"), list(show.WHY.items()))
def test_why_it_ended_is_told(capsys: pytest.CaptureFixture[str], why: str, words: str):
    """Each reason of the desk in words, with what it said beside it."""
    it = rental([machine(0)], state="ended", why=why, ended_s=NOW_S, detail="place 0: died", runway_s=None)
    out, _ = shown(capsys, it)
    assert words in out
    assert "place 0: died" in out
    assert "mesh" not in out.split("phase")[0]


def test_every_reason_of_the_gateway_has_words():
    """None is shown as its code alone."""
    from clusterai.gateway.core.rentstate import Close

    assert set(show.WHY) == {it.value for it in Close}


@pytest.mark.parametrize(
    ("runway_s", "left_s", "warned"),
    [
        (599, 3_600, True),
        (600, 3_600, True),
        (601, 3_600, False),
        (599, 600, True),
        (599, 599, False),
        (None, 9, False),
    ],
)
def test_money_that_ends_before_the_booking_is_warned_of(runway_s: int | None, left_s: int, warned: bool):
    """Ten minutes before, and only where the booking is longer."""
    it = rental([machine(0)], runway_s=runway_s, until_s=NOW_S + left_s)
    found = show.short_runway(it, NOW_S)
    assert (found is not None) == warned
    assert found is None or "clusterai account fund" in found


def test_a_pause_is_told_with_its_cure():
    """The machines stand still, unpaid."""
    found = show.short_runway(rental([machine(0)], state="paused", runway_s=0), NOW_S)
    assert found is not None
    assert "go on once there is credit" in found


@pytest.mark.parametrize(
    ("it", "left"),
    [
        (rental([machine(0)], until_s=NOW_S + 3_600, runway_s=29), "29 s of credit"),
        (rental([machine(0)], until_s=NOW_S + 3_600, runway_s=601), "1 h"),
        (rental([machine(0)], until_s=NOW_S + 3_600, runway_s=None), "1 h"),
        (rental([machine(0)], until_s=NOW_S + 3_600, runway_s=14, state="paused"), "no credit"),
    ],
)
def test_a_list_shows_what_ends_a_rental_first(it: Rental, left: str, capsys: pytest.CaptureFixture[str]):
    """The booking, or the money."""
    show.listed([it], NOW_S)
    assert capsys.readouterr().out.rstrip().endswith(left)


def test_how_this_end_is_connected_is_told(capsys: pytest.CaptureFixture[str]):
    """Direct, over the relay, or not heard yet."""
    keeper = KeeperState(
        pid=1,
        interface="clr1",
        namespace="",
        phase="connected",
        ways={0: "direct", 1: "relay", 2: "silent", 3: "relay"},
    )
    out, _ = shown(capsys, rental([machine(0)]), keeper)
    assert "on clr1 (1 direct, 2 relay, 1 silent)" in out


def test_strangers_words_steer_no_terminal(capsys: pytest.CaptureFixture[str]):
    """A machine's detail is printed, without escapes and without markup."""
    note = RentalNote(at_s=NOW_S, what="lost", detail="\x1b[2J[bold]gone[/nothing]")
    out, _ = shown(capsys, rental([machine(0)], notes=[note]))
    assert "\x1b" not in out
    assert "[2J[bold]gone[/nothing]" in out


class Scripted:
    """A gateway that tells one rental after another, the last for ever."""

    def __init__(self, *told: Rental | Exception) -> None:
        self._told = list(told)

    def show(self, rental: str) -> Rental:
        found = self._told.pop(0) if len(self._told) > 1 else self._told[0]
        if isinstance(found, Exception):
            raise found
        return found


def waited(*told: Any) -> Rental:
    clock = itertools.count(0.0, 1.0)
    rentals: Any = Scripted(*told)
    found: Rentals = rentals
    first = rental([machine(0, phase="opening")], state="opening")
    return wait.until_running(found, first, lambda: next(clock), lambda _: None)


def test_each_step_is_told_once(capsys: pytest.CaptureFixture[str]):
    """Asked, opened, ready: a line each, however often it is looked."""
    opened = rental([machine(0, phase="opened")], state="opening")
    it = waited(opened, opened, Unreachable("http://x", "gone"), opened, rental([machine(0)]))
    assert it.state == "running"
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 3)[3] for line in lines] == [
        "is asked", "has its sandbox and its key; Ray starts", "is ready (mesh 7 ms, ray 900 ms)",
    ]  # fmt: skip


def test_what_never_comes_up_is_told_with_its_reason():
    """It ended, it takes too long, or the gateway stays away."""
    with pytest.raises(Failure, match="didn't come up: its machines didn't come up together"):
        waited(rental([machine(0)], state="ended", why="never_ready", ended_s=1))
    with pytest.raises(Failure, match="isn't running after 200 s"):
        waited(rental([machine(0, phase="opening")], state="opening"))
    with pytest.raises(Unreachable):
        waited(Unreachable("http://x", "gone"))
    with pytest.raises(ApiError):
        waited(ApiError(404, "not-found", "this account has no such rental"))


def test_nobody_else_reads_what_is_kept(tmp_path: Path):
    """The key and the token are the owner's alone, and gone with the rental."""
    folder = RentalFolder(tmp_path, LEASE)
    folder.write_plan(("0x01",))
    folder.write_token("ab" * 32)
    secret = folder.secret()
    assert (len(secret), folder.secret()) == (32, secret)
    assert {path.stat().st_mode & 0o077 for path in (folder.path, *folder.path.iterdir())} == {0}
    plan = folder.plan()
    assert plan is not None
    assert plan.nodes == ("0x01",)
    folder.remove()
    assert not folder.path.exists()
    assert folder.plan() is None


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"id": "0x00", "nodes": []}', b'{"pid": "x"}', b"\xff"])
def test_files_that_are_broken_count_as_none(tmp_path: Path, raw: bytes):
    """A half-written or foreign file stops nobody."""
    folder = RentalFolder(tmp_path, LEASE)
    folder.make()
    for name in ("plan.json", "keeper.json", "mesh.key"):
        (folder.path / name).write_bytes(raw)
    assert folder.plan() is None
    assert folder.state() is None
    assert list(unheld(tmp_path)) == []
    assert len(folder.secret()) == 32
