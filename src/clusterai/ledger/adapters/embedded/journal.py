"""What the chain must never forget, in one SQLite file: blocks, and the state they lead to.

Blocks, receipts, logs and the writes to the state are one SQLite transaction, durable before any hash in it is
told (WAL, synchronous=FULL). So the state on disk is always that of the last block, start-up loads it without
executing anything, and its digest must equal the last header's. The raw transactions stay, so that `replay` can
execute all again and compare.

Empty blocks come every two seconds for ever. Runs of up to 256 of them share a row that holds their timestamps'
differences, about 1.4 bytes a block with its overhead; their headers are derived again when somebody asks.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from clusterai.ledger.adapters.embedded.blocks import (
    Block,
    Header,
    Included,
    account_entry,
    beacon,
    slot_entry,
)
from clusterai.ledger.adapters.embedded.evm import (
    ABSENT,
    Account,
    AccountWrite,
    Evm,
    Log,
    Outcome,
    SlotWrite,
    Writes,
)
from clusterai.ledger.adapters.embedded.transactions import decode_transaction
from clusterai.ledger.core.rlp import integer_bytes
from clusterai.protocol.ids import Address, Digest

IDLE_RUN = 256
_VERSION = b"1"

_SCHEMA = """
create table if not exists meta (key text primary key, value blob not null) without rowid;
create table if not exists block (
    number integer primary key, hash blob not null unique, parent blob not null, timestamp integer not null,
    prevrandao blob not null, state blob not null, transactions blob not null, receipts blob not null,
    gas_used integer not null, has_logs integer not null);
create table if not exists idle (
    first integer primary key, parent blob not null, state blob not null, start integer not null,
    deltas blob not null);
create table if not exists tx (
    block integer not null, idx integer not null, hash blob not null unique, raw blob not null,
    success integer not null, gas_used integer not null, gas_before integer not null, created blob,
    first_log integer not null, output blob not null, halt text not null,
    primary key (block, idx)) without rowid;
create table if not exists log (
    block integer not null, idx integer not null, tx integer not null, address blob not null,
    t0 blob, t1 blob, t2 blob, t3 blob, data blob not null, primary key (block, idx)) without rowid;
create index if not exists log_of on log (address, t0, block);
create table if not exists account (
    address blob primary key, nonce integer not null, balance blob not null, code_hash blob not null) without rowid;
create table if not exists slot (
    address blob not null, key blob not null, value blob not null, primary key (address, key)) without rowid;
create table if not exists code (hash blob primary key, code blob not null) without rowid;
"""


class DamagedJournal(ValueError):
    """The chain's journal doesn't hold together: {why}. Restore the folder from a copy, or begin a new chain."""


class BusyJournal(ValueError):
    """Another process has this chain open. Stop it (`clusterai down`) or give another --data folder."""


class UnwrittenJournal(OSError):
    """{path} can't be written: {why}. No block that was told is lost: make room on its disk, and start the chain again."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} can't be written: {why}, with {shutil.disk_usage(path.parent).free:,} bytes free on its disk; "
            "no block that was told is lost: make room there, and start the chain again"
        )


class LogQuery(msgspec.Struct, frozen=True):
    """`topics[i]` empty: any value; otherwise one of them. `addresses` empty: any."""

    first: int
    last: int
    addresses: tuple[bytes, ...] = ()
    topics: tuple[tuple[bytes, ...], ...] = ()


class LogRow(msgspec.Struct, frozen=True):
    block: int
    block_hash: Digest
    timestamp_s: int
    index: int
    transaction: Digest
    transaction_index: int
    log: Log


class Journal:
    """One file, one process.

    Raises:
        BusyJournal, DamagedJournal: on opening.
        UnwrittenJournal: the disk is full or broken; from then on nothing is written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # holds the beacon's seed: for its owner only
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        self._run: tuple[int, list[int]] | None = None
        self._commit = _Commit(self._db, path)
        try:
            self._db.execute("pragma locking_mode=exclusive")
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute("pragma cache_size=-32000")
            self._db.executescript("begin immediate;" + _SCHEMA + "commit;")
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise BusyJournal(BusyJournal.__doc__) from error
            raise UnwrittenJournal(path, str(error)) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise DamagedJournal(str(error)) from error

    def close(self) -> None:
        self._db.close()

    # writing

    def create(self, chain_id: int, seed: bytes, block: Block, evm: Evm, slots: Iterable[SlotWrite]) -> None:
        meta = {"version": _VERSION, "chain_id": integer_bytes(chain_id), "seed": seed}
        accounts = [AccountWrite(address, ABSENT, account) for address, account in evm.accounts.items()]
        codes = {account.after.code_hash: evm.code(account.address) for account in accounts}
        with self._commit:
            self._db.executemany("insert into meta values (?, ?)", meta.items())
            self._put_block(block)
            self._put_state(Writes(accounts, list(slots), codes))

    def append(self, blocks: Iterable[Block], writes: Iterable[Writes]) -> None:
        """Durable when it returns."""
        with self._commit:
            for block in blocks:
                self._put_block(block)
            for write in writes:
                self._put_state(write)
        self._run = None

    def append_idle(self, header: Header, since_s: int) -> None:
        """An empty block, `since_s` after its parent. Durable when it returns."""
        run = self._run
        with self._commit:
            if run is None or len(run[1]) >= IDLE_RUN:
                run = (header.number, [0])
                row = (header.number, header.parent, header.state.to_bytes(32), header.timestamp_s)
                self._db.execute(
                    "insert into idle values (?, ?, ?, ?, ?)", (*row, msgspec.msgpack.encode([0]))
                )
            else:
                run[1].append(since_s)
                deltas = msgspec.msgpack.encode(run[1])
                self._db.execute("update idle set deltas = ? where first = ?", (deltas, run[0]))
        self._run = run

    def _put_block(self, block: Block) -> None:
        h = block.header
        self._db.execute(
            "insert into block values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                h.number,
                block.hash,
                h.parent,
                h.timestamp_s,
                h.prevrandao,
                h.state.to_bytes(32),
                h.transactions,
                h.receipts,
                h.gas_used,
                h.has_logs,
            ),
        )
        self._db.executemany(
            "insert into tx values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_transaction_row(h.number, included) for included in block.included],
        )
        self._db.executemany("insert into log values (?, ?, ?, ?, ?, ?, ?, ?, ?)", _log_rows(block))

    def _put_state(self, writes: Writes) -> None:
        db = self._db
        for account in writes.accounts:
            after = account.after
            if after == ABSENT:
                db.execute("delete from account where address = ?", (account.address,))
            else:
                row = (account.address, after.nonce, integer_bytes(after.balance), after.code_hash)
                db.execute("insert or replace into account values (?, ?, ?, ?)", row)
        for slot in writes.slots:
            if slot.after == 0:
                db.execute(
                    "delete from slot where address = ? and key = ?", (slot.address, slot.key.to_bytes(32))
                )
            else:
                row = (slot.address, slot.key.to_bytes(32), integer_bytes(slot.after))
                db.execute("insert or replace into slot values (?, ?, ?)", row)
        db.executemany("insert or ignore into code values (?, ?)", writes.codes.items())

    # reading

    def meta(self) -> tuple[int, bytes] | None:
        """Chain id and seed, or None while the journal is empty."""
        found: dict[str, bytes] = dict(self._db.execute("select key, value from meta"))
        if not found:
            return None
        if found.get("version") != _VERSION or "seed" not in found or "chain_id" not in found:
            raise DamagedJournal(f"version {found.get('version')!r} instead of {_VERSION!r}")
        return int.from_bytes(found["chain_id"]), found["seed"]

    def load(self, evm: Evm) -> int:
        """Put the whole state into an empty `evm`; returns its digest."""
        state = 0
        codes: dict[bytes, bytes] = dict(self._db.execute("select hash, code from code"))
        accounts: list[AccountWrite] = []
        for address, nonce, balance, code_hash in self._db.execute("select * from account"):
            account = Account(nonce, int.from_bytes(balance), code_hash)
            accounts.append(AccountWrite(address, ABSENT, account))
            state += account_entry(address, account)
        slots: list[SlotWrite] = []
        for address, key, value in self._db.execute("select * from slot"):
            slot = SlotWrite(address, int.from_bytes(key), 0, int.from_bytes(value))
            slots.append(slot)
            state += slot_entry(address, slot.key, slot.after)
        if missing := {write.after.code_hash for write in accounts} - codes.keys() - {ABSENT.code_hash}:
            raise DamagedJournal(f"the code of {len(missing)} contracts is missing")
        evm.apply(Writes(accounts, slots, codes))
        return state % 2**256

    def last(self) -> int:
        """The number of the last block; the next empty one joins its run, if it is in one."""
        number = self._last()
        if number is None:
            raise DamagedJournal("it holds no block")
        if (idle := self._idle_row(number)) is not None:
            self._run = (idle[0], msgspec.msgpack.decode(idle[4], type=list[int]))
        return number

    def _last(self) -> int | None:
        number: int | None = self._db.execute("select max(number) from block").fetchone()[0]
        row = self._db.execute("select first, deltas from idle order by first desc limit 1").fetchone()
        if row is None:
            return number
        return max(number or 0, row[0] + len(msgspec.msgpack.decode(row[1], type=list[int])) - 1)

    def block(self, number: int, seed: bytes, chain_id: int) -> Block | None:
        row = self._db.execute("select * from block where number = ?", (number,)).fetchone()
        if row is not None:
            return self._full(row, chain_id)
        return next(
            (block for block in self.idle_blocks(number, seed) if block.header.number == number), None
        )

    def idle_blocks(self, number: int, seed: bytes) -> Iterator[Block]:
        """The run of empty blocks that holds `number`, from its first on."""
        row = self._idle_row(number)
        if row is None:
            return
        first, parent, state, timestamp_s, deltas = row
        for offset, delta in enumerate(msgspec.msgpack.decode(deltas, type=list[int])):
            timestamp_s += delta
            header = empty_header(seed, first + offset, Digest(parent), timestamp_s, int.from_bytes(state))
            parent = header.digest()
            yield Block(header, parent)

    def _idle_row(self, number: int) -> tuple[int, bytes, bytes, int, bytes] | None:
        row: tuple[int, bytes, bytes, int, bytes] | None = self._db.execute(
            "select * from idle where first <= ? order by first desc limit 1", (number,)
        ).fetchone()
        if row is None or number >= row[0] + len(msgspec.msgpack.decode(row[4], type=list[int])):
            return None
        return row

    def _full(
        self, row: tuple[int, bytes, bytes, int, bytes, bytes, bytes, bytes, int, int], chain_id: int
    ) -> Block:
        (
            number,
            block_hash,
            parent,
            timestamp_s,
            prevrandao,
            state,
            transactions,
            receipts,
            gas_used,
            has_logs,
        ) = row
        header = Header(
            number,
            Digest(parent),
            timestamp_s,
            Digest(prevrandao),
            int.from_bytes(state),
            Digest(transactions),
            Digest(receipts),
            gas_used,
            bool(has_logs),
        )
        logs: dict[int, list[Log]] = {}
        for _, _, tx, address, t0, t1, t2, t3, data in self._db.execute(
            "select * from log where block = ? order by idx", (number,)
        ):
            logs.setdefault(tx, []).append(_log(address, (t0, t1, t2, t3), data))
        included = [
            Included(
                transaction=decode_transaction(raw, chain_id),
                outcome=Outcome(
                    success=bool(success),
                    output=output,
                    gas_used=gas,
                    logs=tuple(logs.get(index, ())),
                    created=created and Address(created),
                    halt=halt,
                ),
                index=index,
                first_log=first_log,
                gas_before=gas_before,
            )
            for _, index, _, raw, success, gas, gas_before, created, first_log, output, halt in self._db.execute(
                "select * from tx where block = ? order by idx", (number,)
            )
        ]
        return Block(header, Digest(block_hash), tuple(included))

    def number_of(self, block_hash: bytes) -> int | None:
        row = self._db.execute("select number from block where hash = ?", (block_hash,)).fetchone()
        return row and row[0]

    def place_of(self, transaction: bytes) -> tuple[int, int] | None:
        """(block, index) of a transaction."""
        row: tuple[int, int] | None = self._db.execute(
            "select block, idx from tx where hash = ?", (transaction,)
        ).fetchone()
        return row

    def logs(self, query: LogQuery, limit: int) -> list[LogRow]:
        where = ["log.block between ? and ?"]
        values: list[int | bytes] = [query.first, query.last]
        wanted = [("log.address", query.addresses)]
        wanted += [(f"log.t{at}", choice) for at, choice in enumerate(query.topics)]
        for column, choice in wanted:
            if choice:
                where.append(f"{column} in ({','.join('?' * len(choice))})")
                values += choice
        if len(query.topics):
            # a filter of n positions asks for logs with at least n topics, whatever they are
            where.append(f"log.t{len(query.topics) - 1} is not null")
        # the clauses are ours; what a client sends is bound as values
        select = (
            "select log.*, tx.hash, block.hash, block.timestamp from log "
            "join tx on tx.block = log.block and tx.idx = log.tx join block on block.number = log.block where "
        )
        sql = select + " and ".join(where) + " order by log.block, log.idx limit ?"
        rows = self._db.execute(sql, (*values, limit))
        return [
            LogRow(block, block_hash, at, index, tx_hash, tx, _log(address, (t0, t1, t2, t3), data))
            for block, index, tx, address, t0, t1, t2, t3, data, tx_hash, block_hash, at in rows
        ]


def empty_header(seed: bytes, number: int, parent: Digest, timestamp_s: int, state: int) -> Header:
    return Header(number, parent, timestamp_s, beacon(seed, number, parent), state)


class _Commit:
    """A SQLite transaction, again and again until one fails. Cheaper than `with connection`, which leaves `begin` to the caller."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._lost = ""

    def __enter__(self) -> None:
        # The EVM is ahead of a journal that failed once: a smaller block that has room would be of a state that never was.
        if self._lost:
            raise UnwrittenJournal(self._path, self._lost)
        try:
            self._db.execute("begin immediate")
        except sqlite3.OperationalError as error:
            raise self._told(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            try:
                self._db.execute("commit")
            except sqlite3.OperationalError as failed:
                raise self._told(failed) from failed
            return
        if self._db.in_transaction:  # SQLite has already gone back where the disk was full
            self._db.execute("rollback")
        if isinstance(error, sqlite3.OperationalError):
            raise self._told(error) from error

    def _told(self, error: sqlite3.OperationalError) -> UnwrittenJournal:
        self._lost = str(error)
        return UnwrittenJournal(self._path, self._lost)


def _log(address: bytes, topics: tuple[bytes | None, ...], data: bytes) -> Log:
    return Log(Address(address), tuple(topic for topic in topics if topic is not None), data)


def _transaction_row(number: int, included: Included) -> tuple[object, ...]:
    outcome, transaction = included.outcome, included.transaction
    output = b"" if outcome.success else outcome.output[:1024]
    return (
        number,
        included.index,
        transaction.hash,
        transaction.raw,
        outcome.success,
        outcome.gas_used,
        included.gas_before,
        outcome.created,
        included.first_log,
        output,
        outcome.halt,
    )


def _log_rows(block: Block) -> Iterator[tuple[object, ...]]:
    for included in block.included:
        for at, log in enumerate(included.outcome.logs, included.first_log):
            topics = (*log.topics, None, None, None, None)[:4]
            yield (block.header.number, at, included.index, log.address, *topics, log.data)
