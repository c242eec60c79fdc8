"""An examination: an honest machine is found to be what it is, and each liar is caught, or bounded by what it did."""

from typing import Any

import msgspec
import pytest
from blake3 import blake3

from clusterai.audit.core import pages
from clusterai.protocol.ids import Digest
from clusterai.protocol.measuring import (
    Committed,
    Declined,
    Echo,
    Fill,
    Filled,
    Gpu,
    Multiply,
    Ran,
    Reread,
    Result,
    Run,
    ShowLink,
    ShowPages,
    Stored,
    Test,
)
from clusterai.protocol.offers import Field
from clusterai.validator.core.examination import Outcome, Plan, Unfinished
from tests.rooms.measuring.machine_played import PLAN, Played, claims, examined

H100 = Gpu("h100", "GPU-1", 80 * 2**30)


def outcome(machine: Played, plan: Plan = PLAN) -> Outcome:
    came = examined(machine, plan)
    assert isinstance(came, Outcome), came
    return came


def row(came: Outcome, name: str) -> Any:
    return next(it for it in came.found if it.name == name)


def test_an_honest_machine_is_found_to_be_what_it_is() -> None:
    """Cores, links, memory, disk and line; every number is a floor of what it has."""
    came = outcome(Played(claims()))
    assert came.fields == Field.PROFILE | Field.CPU | Field.BANDWIDTH
    assert came.cpu_milli == 2_000
    assert 0.95 * 320_000 <= came.links_per_s_milli <= 320_000
    assert 2 * 0.95 * 320_000 <= came.links_at_once_per_s_milli <= 640_000
    assert came.rtt_us == 10_000
    assert row(came, "memory_bytes").found == 2**20
    assert row(came, "disk_read_kbytes_per_s").found > 0
    assert came.bandwidth_kbps > 0
    assert came.memory_bytes == 0, "a claim that held is left to stand"


def test_what_was_not_tried_is_said_to_be_claimed() -> None:
    """Of a claim of 16 GiB one mebibyte is filled; the card says which."""
    came = outcome(Played(claims(memory_bytes=2**34)))
    assert not came.fields & Field.MEMORY
    assert (row(came, "memory_bytes").claimed, row(came, "memory_bytes").found) == (
        2**34,
        64 * pages.PAGE_BYTES,
    )
    assert "wasn't tried" in row(came, "memory_bytes").note


def test_hardware_threads_count_as_cores() -> None:
    """Two threads of one core slow each other; they are two that answer at once."""
    assert outcome(Played(claims(cores=4), real_cores=3)).cpu_milli == 4_000


def test_cores_that_are_not_there_are_not_counted() -> None:
    """Two posing as ten are found to be four at most: ten chains run at a fifth of one alone."""
    came = outcome(Played(claims(cores=10), real_cores=2))
    assert 3_000 <= came.cpu_milli <= 4_000
    assert came.links_at_once_per_s_milli <= 2 * 320_000


class Slow(Played):
    """Runs the one core slowly, to have more cores when all run."""

    def run(self, seed: Digest, test: Run) -> tuple[Any, float]:
        if len(test.cores) > 1:
            return super().run(seed, test)
        found = self.chain(seed, next(iter(test.cores)), 4)
        return Ran((found,)), test.ms / 1000


def test_who_is_slow_alone_gains_cores_and_no_speed() -> None:
    """What all chains came to together is what was done, whatever they are called."""
    came = outcome(Slow(claims(cores=5), real_cores=2))
    assert came.cpu_milli == 5_000
    assert came.links_per_s_milli <= 64_000
    assert came.links_at_once_per_s_milli <= 2 * 320_000


class Inventor(Played):
    """A slower machine that makes up half of its chain's values."""

    def chain(self, seed: Digest, core: int, count: int) -> tuple[bytes, ...]:
        true = super().chain(seed, core, count // 2)
        return tuple(it for value in true for it in (value, blake3(value).digest()))


class Repeater(Played):
    """One that sends the same stretch again and again."""

    def chain(self, seed: Digest, core: int, count: int) -> tuple[bytes, ...]:
        return super().chain(seed, core, 1) * count


@pytest.mark.parametrize("cheat", [Inventor, Repeater])
def test_a_slower_machine_posing_as_a_faster_one_has_nothing(cheat: type[Played]) -> None:
    """Drawn stretches are done again; one that is made up leaves no core and no link."""
    came = outcome(cheat(claims()))
    assert (came.cpu_milli, came.links_per_s_milli) == (0, 0)
    assert came.fields & (Field.PROFILE | Field.CPU) == Field.PROFILE | Field.CPU


class Foreseen(Played):
    """Answers every run with what it had computed before, for another seed."""

    def run(self, seed: Digest, test: Run) -> tuple[Any, float]:
        return super().run(Digest(bytes(32)), test)


class Prepared(Played):
    """Answers products with those of a seed that it had guessed."""

    def multiplied(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        result, _ = super().multiplied(Digest(bytes(32)), test)
        return result, 0.001


def test_nothing_can_be_prepared() -> None:
    """Each seed is new: chains and products of another one are worth nothing."""
    assert outcome(Foreseen(claims())).links_per_s_milli == 0
    assert row(outcome(Prepared(claims())), "multiply_mops_per_s").found == 0


class Skipper(Played):
    """Commits to products that it never made."""

    def multiplied(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        made = tuple(
            tuple(Digest(blake3(bytes([a, b])).digest()) for b in range(test.links))
            for a in range(test.cores)
        )
        return Committed(made), 0.001

    def showlink(self, seed: Digest, test: ShowLink) -> tuple[Any, float]:
        return bytes(5 * PLAN.size**2 if test.link == 0 else 9 * PLAN.size**2), 0.0


def test_products_that_were_not_made_are_noticed() -> None:
    """A drawn link is opened, and must be what was committed to."""
    came = outcome(Skipper(claims()))
    assert row(came, "multiply_mops_per_s").found == 0
    assert "committed to" in row(came, "multiply_mops_per_s").note


class Forgetful(Played):
    """Holds no memory: fills it again when pages are drawn, which takes as long as the fill."""

    def showpages(self, seed: Digest, test: ShowPages) -> tuple[Any, float]:
        return super().showpages(seed, test)[0], 2.0


class Half(Played):
    """Has half of the memory, and makes up the other pages."""

    def showpages(self, seed: Digest, test: ShowPages) -> tuple[Any, float]:
        there = tuple(min(page, self.filled[0].pages // 2) for page in test.pages)
        return super().showpages(seed, msgspec.structs.replace(test, pages=there))


class Small(Played):
    def fill(self, seed: Digest, test: Fill) -> tuple[Any, float]:
        return Declined("unable", "not so much memory is free"), 0.0


@pytest.mark.parametrize("cheat", [Forgetful, Half, Small])
def test_memory_that_is_not_there_is_found_missing(cheat: type[Played]) -> None:
    """The claim falls: what is measured is nought, and stands in its place."""
    came = outcome(cheat(claims()))
    assert came.fields & Field.MEMORY
    assert came.memory_bytes == 0


def test_a_card_that_is_not_there_stays_a_claim() -> None:
    """It can't multiply: its claim isn't measured, and the row says so."""
    came = outcome(Played(claims(gpus=(H100,))))
    assert not came.fields & Field.GPU
    assert row(came, "gpu_0_mops_per_s").found is None
    assert "not measured" in row(came, "gpu_0_mops_per_s").note


class Posing(Played):
    """Its processor answers for a card."""

    def multiply(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        return self.multiplied(seed, test)


def test_a_processor_does_not_pass_for_a_card() -> None:
    """What the cores together could do as well isn't taken for a card's work."""
    came = outcome(Posing(claims(gpus=(H100,))))
    assert not came.fields & Field.GPU
    assert "cores could" in row(came, "gpu_0_mops_per_s").note


class Carded(Played):
    """Has a card that is a hundred times as fast."""

    def multiply(self, seed: Digest, test: Multiply) -> tuple[Any, float]:
        result, took_s = self.multiplied(seed, test)
        return result, took_s / 100 if test.gpu else took_s


def test_a_card_that_multiplies_is_measured() -> None:
    """Its name stays the owner's word; that something there multiplies so fast isn't."""
    machine = Carded(claims(gpus=(H100,)))
    machine.mops_per_s, machine.rtt_s = 0.01, 0.000_01
    came = outcome(machine)
    assert came.fields & Field.GPU
    assert (came.gpu, came.gpus) == ("h100", 1)


class Elsewhere(Played):
    def reread(self, seed: Digest, test: Reread) -> tuple[Any, float]:
        return Stored(bytes(32)), 0.0


def test_a_disk_that_loses_what_was_stored_is_none() -> None:
    """What is read again must be what was written."""
    assert row(outcome(Elsewhere(claims())), "disk_write_kbytes_per_s").found == 0


def test_a_faster_helper_elsewhere_is_bounded_by_the_round_trip_alone() -> None:
    """Not caught: a helper 40 ms away answers as its own machine would from there. It is found to be where the helper is."""
    came = outcome(Played(claims(), links_per_s=3_200, rtt_s=0.05))
    assert came.links_per_s_milli > 2_900_000
    assert came.rtt_us == 50_000


@pytest.mark.parametrize("silent_at", [0, 1, 4, 5, 6, 8, 10, 12])
def test_who_stops_answering_is_not_accused(silent_at: int) -> None:
    """Silence ends an examination, or leaves a nought; it raises nothing."""
    machine = Played(claims())
    count = iter(range(100))

    def answer(seed: Digest, test: Test) -> tuple[Result | None, bytes, float]:
        return machine.answer(seed, test) if next(count) < silent_at else (None, b"", 100.0)

    came = examined(machine, answer=answer)
    assert isinstance(came, Unfinished) or came.fields


@pytest.mark.parametrize("code", ["busy", "rented", "too_often"])
def test_who_is_engaged_is_asked_again_later(code: str) -> None:
    """It says nothing of the machine."""
    machine = Played(claims())

    def answer(seed: Digest, test: Test) -> tuple[Result | None, bytes, float]:
        return (Declined(code, "now"), b"", 0.01) if isinstance(test, Run) else machine.answer(seed, test)

    came = examined(machine, answer=answer)
    assert isinstance(came, Unfinished)
    assert came.why.startswith(code)


@pytest.mark.parametrize("result", [Filled((bytes(32),)), Ran(((),)), Committed(((),)), Stored(bytes(32))])
def test_any_answer_to_any_test_is_borne(result: Result) -> None:
    """A node may answer anything to anything."""
    machine = Played(claims())

    def answer(seed: Digest, test: Test) -> tuple[Result | None, bytes, float]:
        return (
            machine.answer(seed, test)
            if type(test).__name__ in ("Introduce", "Echo")
            else (result, b"", 0.01)
        )

    came = examined(machine, answer=answer)
    assert isinstance(came, Unfinished) or came.links_per_s_milli == 0


def test_late_echoes_only_move_a_machine_away() -> None:
    """The least round trip counts, and delay can't make it less."""
    machine = Played(claims(), rtt_s=0.02)
    count = iter(range(100))

    def answer(seed: Digest, test: Test) -> tuple[Result | None, bytes, float]:
        result, data, took_s = machine.answer(seed, test)
        return result, data, took_s + (0.3 if isinstance(test, Echo) and next(count) else 0.0)

    came = examined(machine, answer=answer)
    assert isinstance(came, Outcome)
    assert came.rtt_us == 20_000
