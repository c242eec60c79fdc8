"""Blocks of the cache and the steps made of them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.work.inference.core.blocks import BLOCK, BlockPool, chain
from clusterai.work.inference.core.schedule import Scheduler, Sequence


def check(pool: BlockPool, held: list[list[int]]) -> None:
    """Every block is free, kept or held, and counted as often as it is held."""
    holders = Counter(block for blocks in held for block in blocks)
    assert pool.available == pool.size - len(holders)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 3)), max_size=60))
def test_no_block_is_lost_or_given_twice(moves: list[tuple[int, int, int]]) -> None:
    """Over any history of taking, sharing, filing and releasing, blocks add up, and a writer owns its block alone."""
    pool = BlockPool(8)
    names = [bytes([name]) for name in range(6)]
    held: list[list[int]] = []
    for kind, amount, which in moves:
        if kind <= 1:
            before = {block for blocks in held for block in blocks}
            taken = pool.take(amount)
            assert (taken is None) == (amount > 8 - len(before))
            assert not before & set(taken or [])
            held.append(taken or [])
        elif kind == 2:
            held.append(pool.share(names[which : which + amount]))
        elif kind == 3 and held and held[which % len(held)]:
            pool.file(held[which % len(held)][0], names[amount % 6], b"", [amount] * BLOCK)
        elif held:
            pool.release(held.pop(which % len(held)))
        check(pool, held)


def test_a_prompt_shares_the_blocks_of_an_equal_beginning() -> None:
    """What one prompt computed, the next finds, as far as both begin alike."""
    pool = BlockPool(8)
    first = list(range(100))
    blocks = pool.take(3)
    assert blocks is not None
    for at, (block, name) in enumerate(zip(blocks, chain(first), strict=True)):
        pool.file(block, name, chain(first)[at - 1] if at else b"", first[at * BLOCK : (at + 1) * BLOCK])
    other = [*range(64), *range(500, 540)]
    assert pool.share(chain(other)) == blocks[:2]
    assert pool.share(chain([7, *range(99)])) == []


def test_the_longest_unused_is_forgotten_first() -> None:
    """Kept blocks give way in order of their last use, and the ends of prompts before their beginnings."""
    pool = BlockPool(2)
    blocks = pool.take(2)
    assert blocks is not None
    names = chain(list(range(2 * BLOCK)))
    for at, (block, name) in enumerate(zip(blocks, names, strict=True)):
        pool.file(block, name, names[at - 1] if at else b"", range(at * BLOCK, (at + 1) * BLOCK))
    pool.release(blocks)
    assert pool.take(1) == blocks[1:]
    assert pool.share(names) == blocks[:1]


def test_chain_names_all_that_came_before() -> None:
    """Equal blocks behind different beginnings have different names."""
    assert chain([1] * 64)[1] != chain([2] * 32 + [1] * 32)[1]
    assert chain([1] * 31) == []


def drive(
    scheduler: Scheduler, sequences: list[Sequence], sizes: dict[int, int], most: int = 5000
) -> list[int]:
    """Run until all have their size; returns the order in which they ended, and checks every part on the way.

    The cache is played with tokens in the place of keys and values.
    """
    ended: list[int] = []
    cache: dict[int, list[int]] = {}
    for _ in range(most):
        parts = scheduler.plan()
        if not parts:
            break
        for block, copy in scheduler.take_copies():
            cache[copy] = list(cache[block])
        written: set[int] = set()
        done = {part.sequence.number: part.sequence.done for part in parts}
        for part in parts:
            sequence = part.sequence
            assert part.start == done[sequence.number] < part.end <= len(sequence.tokens)
            done[sequence.number] = part.end
            for at in range(part.start, part.end):
                cache.setdefault(sequence.blocks[at // BLOCK], [-1] * BLOCK)[at % BLOCK] = sequence.tokens[at]
            before = [cache[block] for block in sequence.blocks[: -(-part.end // BLOCK)]]
            assert [token for block in before for token in block][: part.end] == sequence.tokens[: part.end]
            assert len(sequence.blocks) * BLOCK >= part.end
            assert part.single == (part.start >= sequence.prompt)
            if not part.single and sequence.prompt > 1:
                assert part.end - part.start >= 2, "a lone prompt token would go through the other kernel"
        for sequence in {part.sequence.number: part.sequence for part in parts}.values():
            fresh = set(sequence.blocks[sequence.done // BLOCK : -(-done[sequence.number] // BLOCK)])
            assert not fresh & written, "two sequences write to one block"
            written |= fresh
        for part in parts:
            scheduler.computed(part)
        for sequence in {part.sequence.number: part.sequence for part in parts}.values():
            if sequence.ready and sequence.rows_from is None:
                sequence.tokens.append(7)
                if len(sequence.tokens) >= sizes[sequence.number]:
                    ended.append(sequence.number)
                    scheduler.remove(sequence)
            elif sequence.ready:
                ended.append(sequence.number)
                scheduler.remove(sequence)
    return ended


@given(
    st.lists(st.tuples(st.integers(1, 150), st.integers(1, 60), st.integers(0, 30)), min_size=1, max_size=12),
    st.integers(8, 30),
    st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_all_end_whatever_the_room(jobs: list[tuple[int, int, int]], blocks: int, slots: int) -> None:
    """Generations and audits of any mix all end, in few blocks by preemption, and give back every block."""
    pool = BlockPool(blocks)
    scheduler = Scheduler(pool, slots=slots, chunk=16, chunk_alone=40)
    sequences: list[Sequence] = []
    sizes: dict[int, int] = {}
    for number, (prompt, new, replay) in enumerate(jobs):
        tokens = list(range(number % 3, number % 3 + prompt))
        tokens[prompt * number // len(jobs) :] = [1000 + number] * (prompt - prompt * number // len(jobs))
        scores = number % 4 == 3
        sequence = Sequence(number, tokens, [7] * replay, rows_from=prompt - 1 if scores else None)
        sizes[number] = prompt + replay + new
        sequences.append(sequence)
        scheduler.add(sequence)
    assert sorted(drive(scheduler, sequences, sizes)) == list(range(len(jobs)))
    assert pool.available == pool.size
    assert not scheduler.running
    assert not scheduler.waiting


def test_a_long_prompt_does_not_stall_streams() -> None:
    """While others decode, a newcomer's prompt comes in chunks, and each step still decodes."""
    scheduler = Scheduler(BlockPool(100), chunk=32, chunk_alone=512)
    scheduler.add(Sequence(0, [1, 2, 3]))
    (first,) = scheduler.plan()
    scheduler.computed(first)
    first.sequence.tokens.append(9)
    scheduler.add(Sequence(1, list(range(1000, 2000))))
    parts = scheduler.plan()
    assert [(part.sequence.number, part.end - part.start) for part in parts] == [(0, 1), (1, 32)]


def test_a_cancelled_sequence_frees_its_blocks_at_once() -> None:
    """The next one can use them in the very next step."""
    pool = BlockPool(4)
    scheduler = Scheduler(pool)
    big, next_ = Sequence(0, list(range(100))), Sequence(1, list(range(500, 600)))
    scheduler.add(big)
    scheduler.add(next_)
    assert [part.sequence.number for part in scheduler.plan()] == [0]
    scheduler.remove(big)
    assert [part.sequence.number for part in scheduler.plan()] == [1]


def test_a_beginning_within_a_block_is_copied() -> None:
    """Two chats under one short system prompt: the second computes only what differs, and no token that was shared."""
    pool = BlockPool(20)
    scheduler = Scheduler(pool)
    first = list(range(50))
    second = [*range(22), *range(100, 130)]
    scheduler.add(Sequence(0, first))
    (part,) = scheduler.plan()
    assert scheduler.take_copies() == []
    scheduler.computed(part)
    scheduler.add(Sequence(1, second))
    other = next(part for part in scheduler.plan() if part.sequence.number == 1)
    assert (other.start, other.end, other.sequence.cached) == (22, 52, 22)
    assert scheduler.take_copies() == [(part.sequence.blocks[0], other.sequence.blocks[0])]


def test_an_audit_is_one_step() -> None:
    """A prompt's end and its answer go together, and the next audit fills what room the first left in the step."""
    scheduler = Scheduler(BlockPool(100), chunk_alone=200)
    for number in (0, 1):
        scheduler.add(Sequence(number, [number] * 40, [7] * 100, rows_from=39))
    parts = [(part.sequence.number, part.start, part.end, part.single) for part in scheduler.plan()]
    assert parts == [(0, 0, 40, False), (0, 40, 140, True), (1, 0, 40, False), (1, 40, 60, True)]


@pytest.mark.parametrize("size", [33, 34, 64, 65, 66, 97])
def test_a_shared_beginning_leaves_two_tokens_to_compute(size: int) -> None:
    """However much of a prompt is on file, its last two tokens are computed together."""
    pool = BlockPool(20)
    scheduler = Scheduler(pool)
    prompt = list(range(size))
    for number in (0, 1):
        scheduler.add(Sequence(number, prompt))
        (part,) = scheduler.plan()
        assert part.end - part.start >= 2
        scheduler.computed(part)
        scheduler.remove(part.sequence)
