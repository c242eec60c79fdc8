"""Programs of requesters over blocks of people: what they can say, and what they can't."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterai.protocol.canonical import content_digest
from clusterai.sandbox import LeaseStore, Outcome, Reason
from clusterai.vault.core.schema import Column, Schema
from clusterai.work.engine import TokenEvent, Unfit
from clusterai.work.packed import bytes_of
from clusterai.work.query.adapters.blocks import Programs, averaged, units_of
from clusterai.work.query.adapters.service import QueryEngine
from clusterai.work.query.core.blocks import (
    MOST_RESULT_BYTES,
    blocks_of,
    csv_of,
    means_of,
    noise_scale,
    noisy_sums,
    steps_of,
)
from clusterai.work.query.core.measuring import STEPS
from clusterai.work.query.core.stream import Stream
from clusterai.work.query.spec import SPARE_S, Answer, Averaged, Bound, QuerySpec, decode_result, decode_said
from tests.rooms.query.fake_vault import SCHEMA, FakeVault, awaited, query, rows, unsealed

AGES = (0, 100_000_000)
SEED = b"\x05" * 32
BLOCK_S = 60
"""Nobody waits for it, since time passes at once; programs are real, and a slow machine takes its time to start one."""
MEAN = b"""
import csv, json
ages = [float(row["age"]) for row in csv.DictReader(open("/job/in/rows.csv"))]
json.dump([sum(ages) / len(ages)], open("/job/out/result.json", "w"))
"""


async def at_once(_: float) -> None:
    """Time that passes at once."""


def spec_of(vault: FakeVault, program: bytes, epsilon_micro: int = 20_000_000, blocks: int = 8) -> QuerySpec:
    return query(
        vault,
        code=content_digest(program),
        bounds=(Bound(*AGES),),
        blocks=blocks,
        block_s=BLOCK_S,
        epsilon_micro=epsilon_micro,
    )


async def mean_of(tmp_path: Path, program: bytes) -> float:
    """A program's answer over eight blocks, with as little noise as can be had."""
    vault = FakeVault(budget_micro=10**9, program=program)
    spec = spec_of(vault, program)
    found = await averaged(Programs(tmp_path), spec, SCHEMA, vault.data, SEED, program, at_once)
    estimate = means_of(found.sums, [AGES], 8, spec.epsilon_micro)[0]
    assert estimate.value is not None
    return estimate.value


@awaited
async def test_a_programs_numbers_are_averaged(tmp_path: Path):
    """A mean of block means is close to the mean."""
    assert await mean_of(tmp_path, MEAN) == pytest.approx(rows()["age"].mean(), abs=6)


@pytest.mark.parametrize(
    "program",
    [
        b"raise SystemExit(3)",
        b"import sys; sys.exit(0)",
        b"while True: pass",
        b"x = bytearray(1 << 40)",
        b"open('/job/out/result.json', 'w').write('[NaN]')",
        b"open('/job/out/result.json', 'w').write('[1e400]')",
        b"open('/job/out/result.json', 'w').write('[1, 2]')",
        b"open('/job/out/result.json', 'w').write('[' * 100000)",
        b"import os; os.symlink('/etc/passwd', '/job/out/result.json')",
        b"import socket; socket.create_connection(('1.1.1.1', 53), 0.5); open('/job/out/result.json', 'w').write('[100]')",
        b"open('/job/in/rows.csv', 'a').write('x'); open('/job/out/result.json', 'w').write('[100]')",
    ],
)
@awaited
async def test_what_fails_is_the_middle(tmp_path: Path, program: bytes):
    """A program that crashes, hangs, grows, answers nonsense, calls out or writes elsewhere gives the middle of the bounds."""
    vault = FakeVault(program=program)
    one = csv_of(["age"], [vault.data["age"]], np.arange(5))
    programs = Programs(tmp_path)
    with programs.store() as store:
        outcome = await programs.run(program, (), one, 1, 1, store)
        left = next((store.read(it.digest) for it in outcome.outputs if it.name == "result.json"), None)
    assert steps_of(left if outcome.ok else None, [AGES]) == (STEPS // 2,)


@awaited
async def test_blocks_know_nothing_of_each_other(tmp_path: Path):
    """What one run leaves behind, the next doesn't find."""
    leave = b"""
import glob, json, os
found = [p for p in ("/job/tmp/left", "/tmp/left", "/dev/shm/left", "/job/out/left") if os.path.exists(p)]
for p in ("/job/tmp/left", "/tmp/left", "/dev/shm/left", "/job/out/left"):
    try: open(p, "w").write("1")
    except OSError: pass
json.dump([100 if found else 0], open("/job/out/result.json", "w"))
"""
    assert await mean_of(tmp_path, leave) < 10


@awaited
async def test_a_program_never_sees_who_a_row_belongs_to(tmp_path: Path):
    """The privacy unit's column isn't handed out."""
    peek = b"""
import csv, json
names = next(csv.reader(open("/job/in/rows.csv")))
json.dump([100 if "person" in names else 0], open("/job/out/result.json", "w"))
"""
    assert await mean_of(tmp_path, peek) < 10


class Stub:
    """Programs that need no time; each run's rows are kept."""

    def __init__(self, folder: Path, outcome: Outcome) -> None:
        self._real = Programs(folder)
        self.store, self._outcome = self._real.store, outcome
        self.given: list[bytes] = []

    async def run(
        self, program: bytes, args: tuple[str, ...], rows: bytes, wall_s: int, seed: int, store: LeaseStore
    ) -> Outcome:
        self.given.append(rows)
        return self._outcome


@pytest.mark.parametrize("reason", [Reason.FINISHED, Reason.FAILED])
@awaited
async def test_every_block_takes_its_slot_whatever_happens_in_it(tmp_path: Path, reason: Reason):
    """An answer leaves when the last slot ends, whether programs finish at once or crash."""
    vault, slept = FakeVault(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    stub = Stub(tmp_path, Outcome(reason=reason))
    await averaged(stub, spec_of(vault, MEAN), SCHEMA, vault.data, SEED, MEAN, sleep)
    # This sleep doesn't pass time, so each one tells how far off the end of its slot is: all but what computing took.
    assert [round(it / (BLOCK_S + SPARE_S)) for it in slept] == [1, 2, 3, 4, 5, 6, 7, 8]


@awaited
async def test_everybody_is_in_one_block(tmp_path: Path):
    """All rows are handed out once, and those of one person together."""
    data = rows(300)
    data["person"] = np.arange(300) // 3
    data["age"] = data["person"] % 101
    vault = FakeVault(data)
    stub = Stub(tmp_path, Outcome(reason=Reason.FAILED))
    await averaged(stub, spec_of(vault, MEAN), SCHEMA, data, SEED, MEAN, at_once)
    ages = [[line.split(",")[0] for line in given.decode().split("\n")[1:-1]] for given in stub.given]
    assert sum(map(len, ages)) == 300
    assert all(mine.count(age) % 3 == 0 for mine in ages for age in mine)


def test_a_person_moves_nobody_else():
    """With one person less, everybody else is in the same block."""
    units = [f"unit {at}" for at in range(200)]
    whole, without = blocks_of(SEED, units, 16), blocks_of(SEED, units[1:], 16)
    assert (whole[1:] == without).all()
    assert len(set(whole.tolist())) == 16


def test_numbers_are_clipped_and_nonsense_is_the_middle():
    """Outputs move within their bounds only; whatever isn't the declared list of numbers is the middle."""
    bounds = [(0, 10_000_000), (-1_000_000, 1_000_000)]
    assert steps_of(b"[5, 0]", bounds) == (STEPS // 2, STEPS // 2)
    assert steps_of(b"[1e300, -7]", bounds) == (STEPS, 0)
    for said in (
        None,
        b"",
        b"[1]",
        b'["a", 1]',
        b"[null, 1]",
        b"{}",
        b"[1, 2, 3]",
        b" " * (MOST_RESULT_BYTES + 1),
    ):
        assert steps_of(said, bounds) == (STEPS // 2, STEPS // 2)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_a_smuggler_learns_no_more_than_epsilon_allows(epsilon: float):
    """A program that says the highest number when it meets one person, and else the lowest, is guessed right as often as ε allows, and no more.

    It is the best that any program can do: one block moves by the whole range. The bound is e^ε / (1 + e^ε).
    """
    blocks, tries, micro = 16, 4_000, int(epsilon * 10**6)
    present = [(STEPS,)] + [(0,)] * (blocks - 1)
    absent = [(0,)] * blocks
    random, stream, right = np.random.default_rng(3), Stream(SEED, "smuggler"), 0
    for _ in range(tries):
        is_there = bool(random.random() < 0.5)
        told = noisy_sums(present if is_there else absent, micro, stream)[0]
        right += (told > STEPS // 2) == is_there
    bound = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert right / tries < bound + 3 * math.sqrt(bound * (1 - bound) / tries)
    assert right / tries > 0.5


def test_many_numbers_share_the_budget():
    """Twice as many numbers have twice the noise each."""
    assert noise_scale(1_000_000, 1) == STEPS
    assert noise_scale(1_000_000, 2) == 2 * STEPS
    assert noise_scale(500_000, 2) == 4 * STEPS


@awaited
async def test_a_program_is_ordered_and_paid_as_a_query_is(tmp_path: Path):
    """Through the engine: its grant's program runs, ε is spent, and the sealed answer holds its means."""
    vault = FakeVault(program=MEAN, budget_micro=30_000_000)
    engine = QueryEngine(vault, tmp_path, at_once)
    spec = spec_of(vault, MEAN)
    tokens = tuple([it.token async for it in engine.submit(spec) if isinstance(it, TokenEvent)])
    answer = decode_said(bytes_of(tokens))
    assert isinstance(answer, Answer)
    told = decode_result(unsealed(answer.sealed)).told
    assert isinstance(told, Averaged)
    assert means_of(told.sums, [AGES], 8, spec.epsilon_micro)[0].value == pytest.approx(50, abs=10)
    assert vault.budget_micro == 10_000_000


@awaited
async def test_without_walls_no_program_is_run(tmp_path: Path):
    """A vault whose machine has no sandbox refuses programs before any ε is spent."""
    vault = FakeVault(program=MEAN, budget_micro=30_000_000)
    engine = QueryEngine(vault, tmp_path, at_once)
    engine.programs, engine.no_programs_because = None, "bubblewrap is missing"
    with pytest.raises(Unfit, match="no_sandbox"):
        engine.submit(spec_of(vault, MEAN))
    assert not vault.spends


def test_cells_are_written_as_a_program_reads_them():
    """Nulls are empty, bools 0 and 1, floats whole."""
    columns: list[Any] = [
        np.array([1, 2]),
        np.array([0.1, np.nan]),
        np.array([True, False]),
        np.array(["a,b", None], dtype=object),
        np.array(["2020-01-02", "NaT"], dtype="datetime64[D]"),
    ]
    assert csv_of(["a", "b", "c", "d", "e"], columns, np.arange(2)) == (
        b'a,b,c,d,e\n1,0.1,1,"a,b",2020-01-02\n2,,0,,\n'
    )


def test_a_vault_without_units_protects_rows():
    """Where no column says whose a row is, each row is somebody's."""
    schema = Schema(columns=(Column(name="age", kind="int", low=0, high=100),))
    units = units_of(schema, {"age": np.arange(40)})
    assert np.bincount(blocks_of(SEED, units, 8), minlength=8).sum() == 40
