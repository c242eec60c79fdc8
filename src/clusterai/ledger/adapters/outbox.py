"""Calls on their way to the chain: each is sent until it is mined or refused, whatever dies meanwhile.

    submit ─> waiting ─estimate, sign, write down─> sent ──receipt──> told, forgotten
                 │ reverts, and nothing is before it     │ nonce used by another: sign anew ─> waiting
                 └────────────> told (Reverted)          │ not seen for `resend_s`: send again, for a better fee

What was signed is on disk before it is sent, and stays there until its outcome was told and heard. All transactions
of one call share its nonce until the chain shows that another transaction used that nonce up, so one call can never be
mined twice. A call that wasn't signed yet dies with the process: whoever submits asks again after a restart, as
machines do, and is told at least once.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clusterai.ledger.adapters.client import ChainClient, OtherChain, TransactionReceipt, head_of
from clusterai.ledger.adapters.jsonrpc import CallReverted, ChainDown, Request, RpcRefused
from clusterai.ledger.core.calls import Call, Mined, Reverted, Submit
from clusterai.ledger.core.transaction import Fees, Signed, sign_transaction
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.signing import Key

GROUP = 64
"""Calls that are prepared and sent together."""
MAX_ATTEMPTS = 16
"""Signed variants of one call; after so many fee rises the last is only repeated."""
FIRST_BACKOFF_S, MOST_BACKOFF_S = 0.1, 5.0
NO_FEES = Fees(0, 0)

_SCHEMA = """
create table if not exists meta (key text primary key, value blob not null) without rowid;
create table if not exists call (seq integer primary key, record blob not null);
create table if not exists spent (day integer primary key, calls integer not null, wei text not null);
"""


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One signed transaction for a call."""

    raw: bytes
    hash: bytes
    most: bytes
    priority: bytes


class Entry(msgspec.Struct, array_like=True):
    """A call and how far it is. Big integers are bytes, as MessagePack ends at 64 bits."""

    key: str
    call: Call
    nonce: int = -1
    gas: int = 0
    attempts: list[Attempt] = []


class _Sent:
    """An entry with its row, and what isn't worth a disk: when this process sent it last, and what the chain said."""

    def __init__(self, row: int, entry: Entry, *, is_saved: bool) -> None:
        self.row = row
        self.entry = entry
        self.is_saved = is_saved
        self.is_silent = False
        self.at_s = float("-inf")
        self.trouble = ""


_decoder = msgspec.msgpack.Decoder(Entry)


class Outbox:
    """The calls of one key.

    Args:
        path: its file; ":memory:" for a command that ends with its call.
        tell: hears each outcome; when it returns, the outcome is its own to remember.
        poll_s: how often receipts are asked for.
        resend_s: a transaction not seen mined for so long is sent again.
    """

    def __init__(
        self,
        client: ChainClient,
        key: Key,
        path: Path | str,
        tell: Callable[[Mined | Reverted], None],
        poll_s: float = 0.25,
        resend_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._key = key
        self._tell = tell
        self._poll_s = poll_s
        self._resend_s = resend_s
        self._clock = clock
        self._wake = asyncio.Event()
        self._away = ""
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for statement in ("pragma journal_mode=wal", "pragma synchronous=full"):
            self._db.execute(statement)
        self._db.executescript(_SCHEMA)
        self._own_chain()
        self._entries: dict[str, _Sent] = {}
        for row, record in self._db.execute("select seq, record from call order by seq"):
            sent = _Sent(row, _decoder.decode(record), is_saved=True)
            self._entries[sent.entry.key] = sent
        self._rows = max((sent.row for sent in self._entries.values()), default=0)
        self._inherited = set(self._entries)

    def _own_chain(self) -> None:
        """Transactions of another chain, or of another key, must not be taken for ours."""
        ours = self._client.network.genesis + self._key.address
        self._db.execute("insert or ignore into meta values ('owner', ?)", (ours,))
        if self._db.execute("select value from meta where key = 'owner'").fetchone()[0] != ours:
            self._db.close()
            raise OtherChain("this outbox was kept for another chain or another key: move its file away")

    def close(self) -> None:
        self._db.close()

    def submit(self, submit: Submit) -> None:
        """Take a call; never blocks. A key that is on its way already is dropped."""
        before = self._entries.get(submit.key)
        if before is not None:
            if submit.key not in self._inherited or before.entry.call == submit.call:
                return
            # Sent by the process before this one, and whoever submits wants something else by now: he was told and
            # died, or thought anew. The old one can't be called back; it goes on under a name that nobody hears.
            del self._entries[submit.key]
            before.is_silent = True
            before.entry.key = f"{submit.key} (row {before.row})"
            self._entries[before.entry.key] = before
        self._inherited.discard(submit.key)
        self._rows += 1
        self._entries[submit.key] = _Sent(self._rows, Entry(submit.key, submit.call), is_saved=False)
        self._wake.set()

    def on_the_way(self) -> list[str]:
        """Keys whose outcome wasn't told yet, oldest first."""
        return [key for key, sent in self._entries.items() if not sent.is_silent]

    @property
    def trouble(self) -> str:
        """Why nothing moves at present, for people; "" while all is well."""
        stuck = (f"{key}: {sent.trouble}" for key, sent in self._entries.items() if sent.trouble)
        return self._away or next(stuck, "")

    async def run(self) -> None:
        """Send and watch until cancelled; a chain that is away is waited for."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            self._wake.clear()
            try:
                moved = await self._round()
                backoff_s = FIRST_BACKOFF_S
            except (ChainDown, RpcRefused) as error:
                self._away = str(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)
                continue
            if not moved:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._poll_s if self._entries else None)

    async def _round(self) -> bool:
        """One look at everything; True if it is worth looking again at once."""
        settled = await self._collect()
        self._away = ""
        late = [sent for sent in self._sent() if self._clock() - sent.at_s >= self._resend_s]
        if late:
            await self._again(late)
        return await self._prepare() or settled

    def _sent(self) -> list[_Sent]:
        return [sent for sent in self._entries.values() if sent.entry.attempts]

    # what became of those that were sent

    async def _collect(self) -> bool:
        flying = self._sent()
        if not flying:
            return False
        hashes = [Digest(attempt.hash) for sent in flying for attempt in sent.entry.attempts]
        receipts = {r.transaction: r for r in await self._client.receipts(hashes) if r is not None}
        mined = [
            (sent, receipt)
            for sent in flying
            for attempt in sent.entry.attempts
            if (receipt := receipts.get(Digest(attempt.hash)))
        ]
        confirmations = self._client.network.confirmations
        if mined and confirmations:
            head = await self._client.head()
            mined = [(sent, r) for sent, r in mined if head.number >= r.block + confirmations]
        outcomes = [(sent, await self._outcome(sent.entry, receipt)) for sent, receipt in mined]
        self._spend([receipt.fee_wei for _, receipt in mined])
        self._finish(outcomes)
        return bool(mined)

    async def _outcome(self, entry: Entry, receipt: TransactionReceipt) -> Mined | Reverted:
        if receipt.success:
            return Mined(entry.key, receipt.transaction, receipt.block)
        returned = receipt.returned or await self._ask_why(entry, receipt.block)
        unnamed = "OutOfGas" if receipt.gas_used >= entry.gas else "Reverted"
        return Reverted(entry.key, self._client.codec.revert(returned) or unnamed)

    async def _ask_why(self, entry: Entry, block: int) -> bytes:
        """Most chains don't keep what a mined transaction returned: call again, on the state before its block, and
        on that behind it in case others of its block made it fail."""
        to, data = self._client.codec.encode(entry.call)
        call = {"from": hex0x(self._key.address), "to": hex0x(to), "data": hex0x(data), "gas": hex(entry.gas)}
        for at in (block - 1, block):
            try:
                await self._client.rpc.ask("eth_call", call, hex(at))
            except CallReverted as error:
                return error.data
            except RpcRefused:
                pass  # the state is gone there; the reason stays unknown
        return b""

    def _finish(self, outcomes: list[tuple[_Sent, Mined | Reverted]]) -> None:
        """Tell, then forget: a death in between tells again."""
        for sent, outcome in outcomes:
            # Out of the way before it is told: who hears it may submit the same key anew.
            del self._entries[sent.entry.key]
            if not sent.is_silent:
                self._tell(outcome)
        self._write("delete from call where seq = ?", [(sent.row,) for sent, _ in outcomes if sent.is_saved])

    def _spend(self, fees_wei: Sequence[int]) -> None:
        """What gas cost, by the day, for people: a death before the outcomes are written down counts them twice."""
        if not fees_wei:
            return
        day = int(time.time()) // 86_400
        row = self._db.execute("select calls, wei from spent where day = ?", (day,)).fetchone()
        calls, wei = (0, 0) if row is None else (row[0], int(row[1]))
        spent = (day, calls + len(fees_wei), str(wei + sum(fees_wei)))
        self._db.execute("insert or replace into spent values (?, ?, ?)", spent)

    # sending again

    async def _again(self, late: list[_Sent]) -> None:
        """Those whose nonce is gone are signed anew; the others are sent again, for more where gas costs."""
        [count] = await self._client.rpc.batch(
            [Request("eth_getTransactionCount", (hex0x(self._key.address), "latest"))]
        )
        used = int(_value(count), 16)
        await self._collect()  # after the count: a transaction mined in between is seen here
        late = [sent for sent in late if sent.entry.key in self._entries and sent.entry.attempts]
        alive: list[_Sent] = []
        for sent in late:
            if sent.entry.nonce < used and not await self._is_mined(sent.entry):
                sent.entry.nonce, sent.entry.attempts = -1, []
                self._save([sent])
            elif sent.entry.nonce >= used:
                alive.append(sent)
        if not alive:
            return
        fees = await self._client.fees()
        for sent in alive:
            last = sent.entry.attempts[-1]
            paid = int.from_bytes(last.most)
            if paid and len(sent.entry.attempts) < MAX_ATTEMPTS:
                # nodes want a tenth more before they replace a transaction
                tip = int.from_bytes(last.priority)
                most, priority = max(fees.most, paid * 9 // 8 + 1), max(fees.priority, tip * 9 // 8 + 1)
                self._sign(sent.entry, Fees(max(most, priority), priority))
        await self._send(alive)

    async def _is_mined(self, entry: Entry) -> bool:
        """Mined, but not yet deep enough to count."""
        receipts = await self._client.receipts([Digest(attempt.hash) for attempt in entry.attempts])
        return any(receipts)

    # sending first

    async def _prepare(self) -> bool:
        """Estimate, sign and send the oldest that wait."""
        waiting = [sent for sent in self._entries.values() if not sent.entry.attempts][:GROUP]
        if not waiting:
            return False
        nonce, fees, gas = await self._ask(waiting)
        flying = self._sent()
        nonce = max([nonce, *(sent.entry.nonce + 1 for sent in flying)])
        ready: list[_Sent] = []
        for sent, answer in zip(waiting, gas, strict=True):
            entry = sent.entry
            if isinstance(answer, CallReverted):
                if flying or ready:
                    continue  # it may need what is on its way before it: asked again when that has arrived
                reason = self._client.codec.revert(answer.data) or answer.message
                self._finish([(sent, Reverted(entry.key, reason))])
                return True
            # the chain's own estimate, and a fifth more for a state that moves on
            entry.nonce, entry.gas = nonce, int(_value(answer), 16) * 6 // 5
            self._sign(entry, fees)
            ready.append(sent)
            nonce += 1
        await self._send(ready)
        return any(not sent.trouble for sent in ready)

    async def _ask(self, waiting: list[_Sent]) -> tuple[int, Fees, list[Any]]:
        """Next nonce, fees and an estimate for each, in one request."""
        who = hex0x(self._key.address)
        requests = [
            Request("eth_getTransactionCount", (who, "pending")),
            Request("eth_getBlockByNumber", ("latest", False)),
            Request("eth_maxPriorityFeePerGas", ()),
        ]
        for sent in waiting:
            to, data = self._client.codec.encode(sent.entry.call)
            requests.append(
                Request("eth_estimateGas", ({"from": who, "to": hex0x(to), "data": hex0x(data)}, "pending"))
            )
        count, block, tip, *gas = await self._client.rpc.batch(requests)
        base = head_of(_value(block)).base_fee_wei
        priority = int(_value(tip), 16) if base else 0
        return int(_value(count), 16), Fees(2 * base + priority, priority), gas

    def _sign(self, entry: Entry, fees: Fees) -> None:
        to, data = self._client.codec.encode(entry.call)
        chain_id = self._client.network.chain_id
        signed: Signed = sign_transaction(self._key, chain_id, entry.nonce, to, data, entry.gas, fees)
        most, priority = fees.most.to_bytes(32), fees.priority.to_bytes(32)
        entry.attempts = [*entry.attempts, Attempt(signed.raw, signed.hash, most, priority)]

    async def _send(self, ready: list[_Sent]) -> None:
        """Write down what is signed, in one commit, then send it."""
        self._save(ready)
        requests = [
            Request("eth_sendRawTransaction", (hex0x(sent.entry.attempts[-1].raw),)) for sent in ready
        ]
        now_s = self._clock()
        for sent in ready:
            sent.at_s = now_s
        for sent, answer in zip(ready, await self._client.rpc.batch(requests), strict=True):
            sent.trouble = ""
            if isinstance(answer, RpcRefused) and not _is_known(answer.message):
                # Looked at again soon: the nonce may be another's now, or the account without money for gas.
                sent.at_s = now_s - self._resend_s + min(self._resend_s, self._poll_s)
                sent.trouble = answer.message

    def _save(self, entries: list[_Sent]) -> None:
        for sent in entries:
            sent.is_saved = True
        rows = [(sent.row, canonical.encode(sent.entry)) for sent in entries]
        self._write("insert or replace into call values (?, ?)", rows)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """All rows in one durable commit."""
        if rows:
            self._db.execute("begin immediate")
            self._db.executemany(statement, rows)
            self._db.execute("commit")


def _value(answer: Any) -> Any:
    if isinstance(answer, RpcRefused):
        raise answer
    return answer


def _is_known(message: str) -> bool:
    return "already known" in message or "already imported" in message


class NotDone(ValueError):
    """The chain refused {call}: {reason}."""

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"the chain refused {call}: {reason}")
        self.reason = reason


async def transact(client: ChainClient, key: Key, *calls: Call, deadline_s: float = 60.0) -> list[Mined]:
    """Make calls one after the other, for commands that end with them.

    Raises:
        NotDone: one reverted; those behind it are not sent. TimeoutError, ChainDown.
    """
    done: list[Mined] = []
    for call in calls:
        async with _working(client, key) as (outbox, outcome):
            outbox.submit(Submit(type(call).__name__, call))
            async with asyncio.timeout(deadline_s):
                found = await outcome
        if isinstance(found, Reverted):
            raise NotDone(found.key, found.reason)
        done.append(found)
    return done


@contextlib.asynccontextmanager
async def _working(
    client: ChainClient, key: Key
) -> AsyncGenerator[tuple[Outbox, asyncio.Future[Mined | Reverted]]]:
    outcome: asyncio.Future[Mined | Reverted] = asyncio.get_running_loop().create_future()
    outbox = Outbox(client, key, ":memory:", outcome.set_result)
    work = asyncio.create_task(outbox.run())
    try:
        yield outbox, outcome
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        outbox.close()
