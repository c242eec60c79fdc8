"""Which tokens of which sequences go into the next step of the engine.

A sequence is a prompt and an answer that grows. Prompt tokens are computed in chunks by the kernel for many queries;
answer tokens each by the kernel for one query, also when they are computed again (after a preemption, at another provider,
in an audit), then many at once as if they were many sequences. The two kernels round differently; kept apart
like this, every logit is the same bit for bit, however a sequence's work was cut and whatever shared its batch (one
thread; measured in tests/rooms/inference). For the same reason blocks of answers are never shared as prompts.

    waiting --blocks there--> prefill --prompt done--> decode --end--> gone
       ^                                               |
       +-----------------blocks needed: youngest-------+
"""

from collections import deque
from collections.abc import Sequence as Tokens

import msgspec

from clusterai.work.inference.core.blocks import BLOCK, BlockPool, chain


class Sequence:
    """One job's state in the engine.

    Attributes:
        tokens: prompt and answer so far.
        prompt: how many of `tokens` are the prompt.
        done: how many are in the cache.
        rows_from: logits are wanted after each token from this index on (for a generation, only after the last).
        cached: how many tokens were found in the cache when it was admitted.
    """

    def __init__(
        self, number: int, prompt: Tokens[int], answer: Tokens[int] = (), rows_from: int | None = None
    ) -> None:
        self.number = number
        self.tokens = [*prompt, *answer]
        self.prompt = len(prompt)
        self.rows_from = rows_from
        self.done = 0
        self.blocks: list[int] = []
        self.cached = 0
        self.paused = False
        self._names: list[bytes] | None = None

    @property
    def names(self) -> list[bytes]:
        """Names of the prompt's full blocks."""
        if self._names is None:
            self._names = chain(self.tokens[: self.prompt])
        return self._names

    @property
    def ready(self) -> bool:
        """All its tokens are computed: it waits for the next one to be drawn."""
        return self.done == len(self.tokens)


class Part(msgspec.Struct, frozen=True):
    """Tokens [start, end) of a sequence, for this step. `single`: each as a query of its own."""

    sequence: Sequence
    start: int
    end: int
    single: bool


class Scheduler:
    """Fills steps.

    Args:
        pool: the cache's blocks.
        slots: sequences in work at once.
        chunk: most prompt tokens in a step that also decodes: a bound on how long streams stall for a newcomer.
        chunk_alone: the same where nobody waits for a token.
    """

    def __init__(self, pool: BlockPool, *, slots: int = 32, chunk: int = 128, chunk_alone: int = 512) -> None:
        self._pool = pool
        self._slots = slots
        self._chunk = chunk
        self._chunk_alone = chunk_alone
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._copies: list[tuple[int, int]] = []
        self.preemptions = 0

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """It ended or was cancelled: its blocks are free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._let_go(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def plan(self) -> list[Part]:
        """The next step's parts, with blocks for all their tokens. Empty where there is nothing to do."""
        self._admit()
        parts = [
            Part(sequence, sequence.done, sequence.done + 1, single=True)
            for sequence in list(self.running)
            if sequence in self.running and _decodes(sequence) and self._room(sequence, sequence.done + 1)
        ]
        budget = self._chunk if parts else self._chunk_alone
        for sequence in list(self.running):
            if sequence.paused or _decodes(sequence):
                continue
            # A prompt's end and the first of its answer's tokens go into one step: an audit is one trip of the weights.
            start = sequence.done
            while budget >= 2 and start < len(sequence.tokens) and sequence in self.running:
                part = self._catch_up(sequence, start, budget)
                if not self._room(sequence, part.end):
                    break
                parts.append(part)
                budget -= part.end - start
                start = part.end
        return [part for part in parts if part.sequence in self.running]

    def computed(self, part: Part) -> None:
        """The step ran: the part's tokens are in the cache."""
        sequence = part.sequence
        sequence.done = part.end
        for at in range(part.start // BLOCK, min(part.end, sequence.prompt) // BLOCK):
            before = sequence.names[at - 1] if at else b""
            tokens = sequence.tokens[at * BLOCK : (at + 1) * BLOCK]
            self._pool.file(sequence.blocks[at], sequence.names[at], before, tokens)

    def take_copies(self) -> list[tuple[int, int]]:
        """(block, its copy) to make, in this order, before the step is computed."""
        copies, self._copies = self._copies, []
        return copies

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._slots:
            sequence = self.waiting[0]
            # The last two prompt tokens are always computed: one for its logits, the other so that it isn't alone.
            shared = self._pool.share(sequence.names[: max(0, sequence.prompt - 2) // BLOCK])
            needed = -(-(len(sequence.tokens) + 1) // BLOCK) - len(shared)
            fresh = self._pool.take(needed) if self._keeps_reserve(needed) else None
            if fresh is None:
                self._pool.release(shared)
                return
            self.waiting.popleft()
            sequence.blocks = shared + fresh
            sequence.done = sequence.cached = len(shared) * BLOCK + self._copied(sequence, len(shared))
            self.running.append(sequence)

    def _copied(self, sequence: Sequence, at: int) -> int:
        """How many tokens its block `at` gets from another one that begins alike."""
        wanted = sequence.tokens[at * BLOCK : max(0, min((at + 1) * BLOCK, sequence.prompt - 2))]
        block, count = self._pool.alike(sequence.names[at - 1] if at else b"", wanted)
        if count:
            self._copies.append((block, sequence.blocks[at]))
        return count

    def _keeps_reserve(self, needed: int) -> bool:
        """Admit only what leaves a block for each running sequence to grow into, lest it be preempted at once."""
        return not self.running or needed + len(self.running) <= self._pool.available

    def _catch_up(self, sequence: Sequence, start: int, budget: int) -> Part:
        if start >= sequence.prompt:
            return Part(sequence, start, min(len(sequence.tokens), start + budget), single=True)
        end = min(sequence.prompt, start + budget)
        if sequence.prompt - end == 1:
            # A lone last token would go through the other kernel.
            end = end - 1 if end - start > 2 else sequence.prompt
        return Part(sequence, start, end, single=False)

    def _room(self, sequence: Sequence, size: int) -> bool:
        """Blocks for `size` tokens, preempting the youngest of the others where needed. False: it was preempted itself."""
        while len(sequence.blocks) * BLOCK < size:
            fresh = self._pool.take(1)
            if fresh is not None:
                sequence.blocks += fresh
                continue
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._let_go(sequence)
        self.waiting.appendleft(sequence)

    def _let_go(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.done = 0


def _decodes(sequence: Sequence) -> bool:
    """One token is left to compute, and it is the answer's last: somebody waits for the next one."""
    return (
        sequence.rows_from is None
        and sequence.done >= sequence.prompt
        and len(sequence.tokens) - sequence.done == 1
    )
