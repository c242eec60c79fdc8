"""The chain itself: takes transactions, makes blocks, answers questions about its latest state.

Synchronous, with the clock handed in; `server` gives it a loop and a socket. A group of transactions that wait
together becomes one block and one durable write, so throughput grows with load and a lone transaction is mined at
once. Nothing is visible, not even to reads, before it is durable.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from clusterai.ledger.adapters.embedded import genesis as genesis_
from clusterai.ledger.adapters.embedded.blocks import (
    Block,
    Header,
    Included,
    beacon,
    moved,
    receipts_digest,
    transactions_digest,
)
from clusterai.ledger.adapters.embedded.evm import (
    BLOCK_GAS_LIMIT,
    BlockContext,
    Evm,
    Message,
    Outcome,
    Refused,
    SlotWrite,
    Writes,
)
from clusterai.ledger.adapters.embedded.genesis import Genesis
from clusterai.ledger.adapters.embedded.journal import DamagedJournal, Journal, LogQuery, LogRow, empty_header
from clusterai.ledger.adapters.embedded.transactions import Transaction
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest

MAX_LOGS = 10_000
_CACHED_BLOCKS = 2048


class WrongChain(ValueError):
    """The journal is of chain {theirs}, not {ours}. Give another --data folder or the right --chain-id."""


class NonceTooLow(ValueError):
    """nonce too low: next nonce {want}, tx nonce {have}"""


class NonceTooHigh(ValueError):
    """nonce too high: next nonce {want}, tx nonce {have}. Send the missing nonces first."""


class TooManyLogs(ValueError):
    """The query matches more than 10000 logs. Ask for a smaller range of blocks, or for fewer topics."""


Rejection = NonceTooLow | NonceTooHigh | Refused


class Chain:
    def __init__(
        self, path: Path, chain_id: int, genesis: Genesis, seed: bytes, clock: Callable[[], float]
    ) -> None:
        """Open the chain at `path`, or begin it with `genesis` and `seed` where there is none.

        Raises:
            WrongChain, DamagedJournal, BusyJournal, BrokenGenesis.
        """
        self.chain_id = chain_id
        self._clock = clock
        self._journal = Journal(path)
        self._recent: OrderedDict[int, Block] = OrderedDict()
        self._numbers: dict[bytes, int] = {}
        self._evm = Evm(chain_id)
        try:
            self._seed, self.head = self._open(genesis, seed)
        except BaseException:
            self._journal.close()
            raise
        self._keep(self.head)

    def _open(self, genesis: Genesis, seed: bytes) -> tuple[bytes, Block]:
        meta = self._journal.meta()
        if meta is None:
            block, slots = _begin(self._evm, genesis, seed, int(self._clock()))
            self._journal.create(self.chain_id, seed, block, self._evm, slots)
            return seed, block
        theirs, seed = meta
        if theirs != self.chain_id:
            raise WrongChain(
                f"the journal is of chain {theirs}, not {self.chain_id}: give another --data folder or chain id"
            )
        number = self._journal.last()
        head = self._journal.block(number, seed, self.chain_id)
        assert head is not None
        if self._journal.load(self._evm) != head.header.state:
            raise DamagedJournal(f"the state on disk is not the one that block {number} led to")
        return seed, head

    def close(self) -> None:
        self._journal.close()

    # making blocks

    def mine(self, transactions: Sequence[Transaction]) -> list[Rejection | None]:
        """Execute in order and make it durable; None for each that is now in a block."""
        blocks: list[Block] = []
        written: list[Writes] = []
        results: list[Rejection | None] = []
        building = _Building(self._next_context())
        parent, state = self.head, self.head.header.state
        for transaction in transactions:
            if building.gas + transaction.gas > BLOCK_GAS_LIMIT and building.included:
                parent = building.close(parent, state)
                blocks.append(parent)
                building = _Building(self._next_context(parent))
            rejection, writes = self._include(building, transaction)
            results.append(rejection)
            if writes is not None:
                written.append(writes)
                state = moved(state, writes)
        if building.included:
            blocks.append(building.close(parent, state))
        if blocks:
            self._journal.append(blocks, written)
            for block in blocks:
                self._keep(block)
            self.head = blocks[-1]
        return results

    def _include(
        self, building: "_Building", transaction: Transaction
    ) -> tuple[Rejection | None, Writes | None]:
        want, have = self.nonce(transaction.sender), transaction.nonce
        if have < want:
            return NonceTooLow(f"nonce too low: next nonce {want}, tx nonce {have}"), None
        if have > want:
            return NonceTooHigh(
                f"nonce too high: next nonce {want}, tx nonce {have}; send those before it first"
            ), None
        self._evm.enter(building.context)
        try:
            outcome, writes = self._evm.execute(message_of(transaction))
        except Refused as error:
            return error, None
        building.add(transaction, outcome)
        return None, writes

    def mine_empty(self) -> None:
        """An empty block, so that time and the beacon move on."""
        parent = self.head
        context = self._next_context()
        header = empty_header(
            self._seed, context.number, parent.hash, context.timestamp_s, parent.header.state
        )
        self._journal.append_idle(header, header.timestamp_s - parent.header.timestamp_s)
        self.head = Block(header, header.digest())
        self._keep(self.head)

    def _next_context(self, parent: Block | None = None) -> BlockContext:
        parent = parent or self.head
        number = parent.header.number + 1
        timestamp_s = max(parent.header.timestamp_s, int(self._clock()))
        return BlockContext(number, timestamp_s, beacon(self._seed, number, parent.hash))

    def _keep(self, block: Block) -> None:
        self._recent[block.header.number] = block
        self._numbers[block.hash] = block.header.number
        while len(self._recent) > _CACHED_BLOCKS:
            _, old = self._recent.popitem(last=False)
            del self._numbers[old.hash]

    # the latest state

    def nonce(self, address: Address) -> int:
        return self._evm.account(address).nonce

    def balance(self, address: Address) -> int:
        return self._evm.account(address).balance

    def code(self, address: Address) -> bytes:
        return self._evm.code(address)

    def storage(self, address: Address, key: int) -> int:
        return self._evm.storage(address, key)

    def call(self, message: Message, *, pending: bool = False) -> Outcome:
        """What `message` would do now; nothing is kept.

        `pending`: at the next block's number and time, but with the last block's beacon: the next one is nobody's
        to know before the block is made.

        Raises:
            Refused: it can't even begin.
        """
        header = self.head.header
        if pending:
            following = self._next_context()
            self._evm.enter(BlockContext(following.number, following.timestamp_s, header.prevrandao))
        else:
            self._evm.enter(header.context())
        return self._evm.call(message)

    def estimate(self, message: Message) -> tuple[int, Outcome]:
        """A gas limit with which `message` succeeds, and how it ended; where it fails, the gas is of no use.

        Gas is free here, so the answer is a bound with room to spare and not the least that would do: what was
        spent before refunds, the 1/64 that each of three nested calls holds back, and a tenth for a state that
        moves on before the transaction arrives. It is tried before it is told; a call that measures its own gas
        is answered with all of a block.
        """
        full = msgspec.structs.replace(message, gas=BLOCK_GAS_LIMIT)
        outcome = self.call(full, pending=True)
        if not outcome.success:
            return BLOCK_GAS_LIMIT, outcome
        spent = outcome.gas_used + outcome.gas_refunded
        gas = min(BLOCK_GAS_LIMIT, spent * 64**3 // 63**3 + spent // 10 + 5_000)
        tried = self.call(msgspec.structs.replace(message, gas=gas), pending=True)
        return (gas, tried) if tried.success else (BLOCK_GAS_LIMIT, outcome)

    # the past

    def block(self, number: int) -> Block | None:
        if number > self.head.header.number:
            return None
        found = self._recent.get(number)
        return found or self._journal.block(number, self._seed, self.chain_id)

    def block_by_hash(self, block_hash: bytes) -> Block | None:
        """Empty blocks are found by hash while they are among the last 2048."""
        number = self._numbers.get(block_hash)
        if number is None:
            number = self._journal.number_of(block_hash)
        return None if number is None else self.block(number)

    def included(self, transaction: bytes) -> tuple[Block, Included] | None:
        place = self._journal.place_of(transaction)
        block = place and self.block(place[0])
        return (block, block.included[place[1]]) if place and block else None

    def logs(self, query: LogQuery) -> list[LogRow]:
        """Raises TooManyLogs past 10000."""
        rows = self._journal.logs(query, MAX_LOGS + 1)
        if len(rows) > MAX_LOGS:
            raise TooManyLogs(TooManyLogs.__doc__)
        return rows

    def next_header(self) -> BlockContext:
        """Number and time of the next block if it were made now, without its beacon."""
        following = self._next_context()
        return msgspec.structs.replace(following, prevrandao=ZERO_DIGEST)

    def replay(self, genesis: Genesis) -> int:
        """Execute every block again from `genesis` in a fresh EVM; returns the number of blocks that agree.

        Raises:
            DamagedJournal: a block leads to another state than its header says.
        """
        evm = Evm(self.chain_id)
        first = self.block(0)
        assert first is not None
        begun, _ = _begin(evm, genesis, self._seed, first.header.timestamp_s)
        if begun.hash != first.hash:
            raise DamagedJournal("the genesis is another than this chain began with")
        state = first.header.state
        for number in range(1, self.head.header.number + 1):
            block = self.block(number)
            assert block is not None
            evm.enter(block.header.context())
            for included in block.included:
                outcome, writes = evm.execute(message_of(included.transaction))
                state = moved(state, writes)
                if outcome.gas_used != included.outcome.gas_used:
                    raise DamagedJournal(f"block {number}: gas differs when executed again")
            if state != block.header.state:
                raise DamagedJournal(f"block {number} leads to another state when executed again")
        return self.head.header.number + 1


class _Building:
    """A block in the making."""

    def __init__(self, context: BlockContext) -> None:
        self.context = context
        self.included: list[Included] = []
        self.gas = 0
        self.logs = 0

    def add(self, transaction: Transaction, outcome: Outcome) -> None:
        self.included.append(Included(transaction, outcome, len(self.included), self.logs, self.gas))
        self.gas += outcome.gas_used
        self.logs += len(outcome.logs)

    def close(self, parent: Block, state: int) -> Block:
        header = Header(
            self.context.number,
            parent.hash,
            self.context.timestamp_s,
            Digest(self.context.prevrandao),
            state,
            transactions_digest(one.transaction for one in self.included),
            receipts_digest(one.outcome for one in self.included),
            self.gas,
            self.logs > 0,
        )
        return Block(header, header.digest(), tuple(self.included))


def message_of(transaction: Transaction) -> Message:
    return Message(
        transaction.sender,
        transaction.to,
        transaction.data,
        transaction.value,
        transaction.gas,
        transaction.access,
    )


def _begin(evm: Evm, genesis: Genesis, seed: bytes, timestamp_s: int) -> tuple[Block, Iterable[SlotWrite]]:
    context = BlockContext(0, timestamp_s, beacon(seed, 0, ZERO_DIGEST))
    state = 0
    slots: dict[tuple[Address, int], SlotWrite] = {}
    for writes in genesis_.build(evm, genesis, context):
        state = moved(state, writes)
        for slot in writes.slots:
            slots[slot.address, slot.key] = slot
    header = Header(0, ZERO_DIGEST, timestamp_s, Digest(context.prevrandao), state)
    return Block(header, header.digest()), slots.values()
