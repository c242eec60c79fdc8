"""Blocks over a toy ledger: what is told was mined, what was undone comes again."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from clusterai.protocol.ids import Address
from clusterai.runtime.machine import Save, Started, Tick
from clusterai.runtime.simulator import Blockchain, Fault, Faults, Process, Simulation, blocks

SAVER = Address(b"saver".ljust(20))


class Put(msgspec.Struct, frozen=True):
    """Effect and call: keep this number; each number is taken once."""

    number: int


class Kept(msgspec.Struct, frozen=True):
    number: int


class Outcome(msgspec.Struct, frozen=True, tag=True):
    number: int
    reason: str | None


class Head(msgspec.Struct, frozen=True):
    number: int


class Undone(msgspec.Struct, frozen=True):
    number: int


class Shelf:
    """A ledger of numbers."""

    def __init__(self, numbers: tuple[int, ...] = ()) -> None:
        self.numbers = numbers

    def mark(self) -> tuple[int, ...]:
        return self.numbers

    def rollback(self, mark: tuple[int, ...]) -> None:
        self.numbers = mark

    def open_block(self, number: int, timestamp_s: int) -> None: ...

    def execute(self, sender: Address, call: Any) -> tuple[Sequence[Any], str | None]:
        if call.number in self.numbers:
            return (), "Taken"
        self.numbers += (call.number,)
        return (Kept(call.number),), None


class Putter:
    """Puts the numbers 0 to 19, one after the other; keeps the outcomes, and what the chain shows."""

    RECORDS = Outcome

    def __init__(self) -> None:
        self.done = 0
        self.shown: list[tuple[int, int]] = []
        self.block = 0

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self.done = record.number + 1

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case Outcome(number) if number == self.done:
                self.done += 1
                return [Save(event), *self._put()]
            case Started() | Tick():
                return self._put()
            case Kept(number):
                self.shown.append((self.block, number))
            case Head(number):
                self.block = number + 1
            case Undone(number):
                self.shown = [(block, it) for block, it in self.shown if block <= number]
                self.block = number + 1
            case _:
                pass
        return []

    def _put(self) -> list[Any]:
        return [Put(self.done)] if self.done < 20 else []

    def snapshot(self) -> list[Outcome]:
        return [Outcome(self.done - 1, None)] if self.done else []


class Adapters:
    def __init__(self, chain: Blockchain) -> None:
        self.chain = chain
        self.process: Process | None = None

    def perform(self, effect: Put) -> None:
        assert self.process
        self.chain.submit(self.process, SAVER, str(effect.number), effect)

    def started(self) -> None:
        assert self.process
        self.chain.follow(self.process)

    def crashed(self) -> None: ...


def run(seed: int, faults: Faults) -> tuple[Blockchain, Putter]:
    simulation = Simulation(seed, faults)
    words = blocks.Words(
        block=lambda number, _: Head(number),
        rolled_back=Undone,
        mined=lambda key, _transaction, _block: Outcome(int(key), None),
        reverted=lambda key, reason: Outcome(int(key), reason),
    )
    chain = Blockchain(
        seed, faults, simulation.timeline, Shelf(), words, start_s=1_000, final=faults.reorganised_blocks
    )
    host = Adapters(chain)
    process = simulation.spawn("saver", SAVER, Putter, host)
    host.process = process
    chain.begin()
    simulation.begin()
    simulation.run(100)
    simulation.heal()
    chain.heal()

    def finished() -> bool:
        return isinstance(process.machine, Putter) and process.machine.done == 20

    assert simulation.run(600, until=finished), simulation.broken("never finished")
    simulation.run(10)
    assert isinstance(process.machine, Putter)
    return chain, process.machine


def test_all_that_was_told_stands_on_the_chain_in_the_end() -> None:
    """Whatever is lost, late or undone, each number is kept once, and the follower saw just the present chain."""
    undone = 0
    for seed in range(60):
        chain, putter = run(seed, Faults.draw(seed))
        assert isinstance(chain.ledger, Shelf)
        assert sorted(chain.ledger.numbers) == list(range(20))
        assert [number for _, number in putter.shown] == list(chain.ledger.numbers)
        undone += chain.undone
    assert undone > 20


def test_a_chain_without_faults_takes_a_block_a_second() -> None:
    """Blocks come regularly, and timestamps never fall."""
    chain, _ = run(0, Faults())
    stamps = [block.timestamp_s for block in chain.blocks]
    assert stamps == list(range(1_000, 1_000 + len(stamps)))


def test_reorganised_blocks_never_make_time_run_backwards() -> None:
    """Timestamps rise along the present chain."""
    chain, _ = run(1, Faults.draw(1, (Fault.REORGANISATION,), share=1))
    stamps = [block.timestamp_s for block in chain.blocks]
    assert stamps == sorted(stamps)
