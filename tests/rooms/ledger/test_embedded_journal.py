"""What the embedded chain promises of its disk: nothing acknowledged is lost, and damage is noticed."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from eth_account import Account

from clusterai.ledger.adapters.embedded.blocks import beacon
from clusterai.ledger.adapters.embedded.chain import Chain, NonceTooHigh, NonceTooLow, WrongChain
from clusterai.ledger.adapters.embedded.evm import Message, Refused
from clusterai.ledger.adapters.embedded.genesis import Allocation, BrokenGenesis, FirstTransaction, Genesis
from clusterai.ledger.adapters.embedded.journal import (
    BusyJournal,
    DamagedJournal,
    Journal,
    LogQuery,
    UnwrittenJournal,
)
from clusterai.ledger.adapters.embedded.transactions import Transaction, decode_transaction
from clusterai.protocol.ids import Address
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID, TOY

SEED = b"\x05" * 32
OWNER = Key(b"\x31" * 32)
CREATION = bytes.fromhex(TOY["bytecode"][2:]) + (10**24).to_bytes(32)
TOY_AT = Address(keccak(b"\xd6\x94" + OWNER.address + b"\x80")[-20:])
GENESIS = Genesis(
    (Allocation(OWNER.address, 10**18),), (FirstTransaction(OWNER.address, None, CREATION, "Toy"),)
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def opened(path: Path, clock: Callable[[], float] | None = None, chain_id: int = CHAIN_ID) -> Chain:
    return Chain(path, chain_id, GENESIS, SEED, clock or Clock())


def transaction(
    nonce: int, data: bytes, to: Address | None = TOY_AT, key: Key = OWNER, value: int = 0
) -> Transaction:
    fields = {"to": to or b"", "nonce": nonce, "data": data, "gas": 3_000_000, "value": value}
    fees = {"maxFeePerGas": 0, "maxPriorityFeePerGas": 0, "chainId": CHAIN_ID}
    raw = Account.sign_transaction({**fields, **fees}, key.secret()).raw_transaction
    return decode_transaction(bytes(raw), CHAIN_ID)


def selector(signature: str, *words: int) -> bytes:
    return keccak(signature.encode())[:4] + b"".join(word.to_bytes(32) for word in words)


def mint(nonce: int, to: int = 0x77, value: int = 5) -> Transaction:
    return transaction(nonce, selector("mint(address,uint256)", to, value))


def total(chain: Chain) -> int:
    return int.from_bytes(chain.call(Message(OWNER.address, TOY_AT, selector("total()"), 0, 100_000)).output)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.sqlite"


def test_a_reopened_chain_is_the_same(path: Path):
    """Head, balances, storage, receipts, logs and nonces are all there again."""
    chain = opened(path)
    assert (
        chain.mine(
            [mint(1), transaction(2, selector("many(uint256)", 4)), transaction(3, b"\xff\xff\xff\xff")]
        )
        == [None] * 3
    )
    chain.mine_empty()
    head, logs = chain.head, chain.logs(LogQuery(0, 9))
    outcome = chain.included(mint(1).hash)
    chain.close()
    again = opened(path)
    assert again.head == head
    assert again.logs(LogQuery(0, 9)) == logs
    assert len(logs) == 5
    assert again.nonce(OWNER.address) == 4
    assert total(again) == 10**24 + 5
    found = again.included(mint(1).hash)
    assert found is not None
    assert outcome is not None
    assert found[0] == again.block(1)
    assert found[1].outcome.logs == outcome[1].outcome.logs
    assert [one.outcome.success for one in found[0].included] == [True, True, False]
    again.close()


def test_executing_everything_again_agrees(path: Path):
    """From the genesis alone, every block leads to the state that its header says."""
    chain = opened(path)
    for nonce in range(1, 30):
        chain.mine([mint(nonce, to=nonce % 4)])
        if nonce % 5 == 0:
            chain.mine_empty()
    chain.mine([transaction(30, selector("makeAndKill()")), transaction(31, CREATION, to=None)])
    chain.close()
    again = opened(path)
    assert again.replay(GENESIS) == again.head.header.number + 1 == 36
    with pytest.raises(DamagedJournal):
        again.replay(Genesis())
    again.close()


def test_the_beacon_is_a_function_of_the_seed(path: Path):
    """prevrandao = keccak(seed, number, parent hash): exact on replay, unknown without the seed."""
    chain = opened(path)
    chain.mine([mint(1)])
    chain.mine_empty()
    for number in (1, 2):
        block, parent = chain.block(number), chain.block(number - 1)
        assert block is not None
        assert parent is not None
        assert block.header.prevrandao == beacon(SEED, number, parent.hash)
    chain.close()


def test_a_call_about_the_next_block_does_not_tell_its_beacon(path: Path):
    """Otherwise anyone could choose transactions by a beacon that isn't drawn yet."""
    chain = opened(path)
    chain.mine([mint(1)])
    look = Message(OWNER.address, None, bytes.fromhex("4460005260206000f3"), 0, 100_000)  # returns prevrandao
    assert chain.call(look, pending=True).success
    chain.mine([transaction(2, look.data, to=None)])
    place = chain.included(transaction(2, look.data, to=None).hash)
    assert place is not None
    created = place[1].outcome.created
    assert created is not None
    assert chain.code(created) == chain.head.header.prevrandao
    chain.close()


def test_time_does_not_run_backwards(path: Path):
    """A clock that is set back makes blocks of the same second, not of an earlier one."""
    clock = Clock()
    chain = opened(path, clock)
    clock.now_s = 2_000
    chain.mine_empty()
    clock.now_s = 1_500
    chain.mine([mint(1)])
    chain.mine_empty()
    times = [block.header.timestamp_s for n in range(4) if (block := chain.block(n))]
    assert times == [1_000, 2_000, 2_000, 2_000]
    chain.close()


def test_empty_blocks_take_two_bytes_each(path: Path):
    """A day of empty blocks adds some dozens of kilobytes, and each of them can still be read."""
    clock = Clock()
    chain = opened(path, clock)
    for _ in range(3_000):
        clock.now_s += 2
        chain.mine_empty()
    head = chain.head
    middle = chain.block(1_234)
    chain.close()
    assert path.stat().st_size < 49_152 + 3_000 * 4
    again = opened(path, clock)
    assert again.head == head
    assert again.block(1_234) == middle
    assert middle is not None
    assert middle.header.timestamp_s == 1_000 + 2 * 1_234
    parent = again.block(1_233)
    assert parent is not None
    assert middle.header.parent == parent.hash
    again.mine_empty()
    assert again.head.header.parent == head.hash
    again.close()


def test_wrong_nonces_are_named(path: Path):
    """Used and skipped nonces are refused with both numbers; the rest of the group is mined."""
    chain = opened(path)
    results = chain.mine([mint(0), mint(1), mint(3), mint(2)])
    assert [type(result) for result in results] == [NonceTooLow, type(None), NonceTooHigh, type(None)]
    poor = transaction(0, b"", to=OWNER.address, key=Key(b"\x41" * 32), value=1)
    assert [type(result) for result in chain.mine([poor])] == [Refused]
    chain.close()


def test_a_group_over_the_gas_limit_becomes_several_blocks(path: Path):
    """No block exceeds its limit; all are durable together."""
    chain = opened(path)
    assert chain.mine([transaction(n, selector("many(uint256)", 60)) for n in range(1, 30)]) == [None] * 29
    assert chain.head.header.number > 1
    assert all(block.header.gas_used <= 30_000_000 for n in range(9) if (block := chain.block(n)))
    chain.close()
    opened(path).close()


def test_a_chain_is_open_once(path: Path):
    """A second process is told so, and harms nothing."""
    chain = opened(path)
    with pytest.raises(BusyJournal):
        opened(path)
    chain.mine([mint(1)])
    chain.close()
    opened(path).close()


def test_another_chains_folder_is_refused(path: Path):
    """The chain id of the journal counts."""
    opened(path).close()
    with pytest.raises(WrongChain):
        opened(path, chain_id=1)


def test_a_genesis_that_fails_leaves_nothing(path: Path):
    """A constructor that reverts is named, and the next start begins anew."""
    broken = Genesis((), (FirstTransaction(OWNER.address, None, b"\xfe", "Broken"),))
    with pytest.raises(BrokenGenesis, match="Broken"):
        Chain(path, CHAIN_ID, broken, SEED, Clock())
    opened(path).close()


def test_a_torn_log_loses_only_what_was_never_acknowledged(path: Path, tmp_path: Path):
    """Whatever part of the last writes is missing or garbled, the chain opens at a block it had acknowledged."""
    random_ = random.Random(7)
    chain = opened(path)
    heads = [chain.head]
    wal = path.with_name(path.name + "-wal")
    sizes = [wal.stat().st_size]
    for nonce in range(1, 25):
        chain.mine([mint(nonce)])
        heads.append(chain.head)
        sizes.append(wal.stat().st_size)
    assert sizes == sorted(set(sizes)), "each block reaches the log before it is told"
    for attempt in range(60):
        copy = tmp_path / f"torn{attempt}" / path.name
        copy.parent.mkdir()
        shutil.copy(path, copy)
        data = bytearray(wal.read_bytes())
        cut = random_.randrange(sizes[0], len(data) + 1)
        if attempt % 2:
            data[cut:] = random_.randbytes(len(data) - cut)
        else:
            del data[cut:]
        copy.with_name(wal.name).write_bytes(data)
        torn = opened(copy)
        durable = sum(size <= cut for size in sizes)
        assert torn.head == heads[durable - 1]
        torn.mine([mint(torn.nonce(OWNER.address))])
        torn.close()
    chain.close()


@pytest.mark.parametrize(
    "statement",
    [
        "update slot set value = x'01'",
        "delete from slot",
        "update account set balance = x'ffff'",
        "delete from code",
        "update block set state = zeroblob(32) where number = 1",
        "delete from block",
        "update meta set value = x'00' where key = 'version'",
    ],
)
def test_a_changed_state_is_noticed(path: Path, statement: str):
    """The state on disk must be the one that the last header names; otherwise the chain doesn't start."""
    chain = opened(path)
    chain.mine([mint(1)])
    chain.close()
    journal = Journal(path)
    journal._db.execute(statement)  # pyright: ignore[reportPrivateUsage]
    journal.close()
    with pytest.raises(DamagedJournal):
        opened(path)


class Disk(Chain):
    """A chain on a disk whose room is ours to say."""

    def most(self, pages: int) -> None:
        self._journal._db.execute(f"pragma max_page_count={pages}")  # pyright: ignore[reportPrivateUsage]


def test_a_full_disk_ends_the_chain_and_loses_no_block_that_was_told(path: Path):
    """The error says what to do; a smaller block that had room isn't taken behind the one that hadn't; with room all goes on."""
    chain = Disk(path, CHAIN_ID, GENESIS, SEED, Clock())
    chain.mine([mint(1)])
    told = chain.head
    chain.most(1)
    with pytest.raises(UnwrittenJournal, match=r"full, with .* bytes free.*make room there, and start"):
        chain.mine([mint(nonce, 1 << nonce) for nonce in range(2, 200)])
    chain.most(1 << 20)
    for one in (chain.mine_empty, lambda: chain.mine([mint(200)])):
        with pytest.raises(UnwrittenJournal):
            one()
    assert chain.head == told
    chain.close()
    again = opened(path)
    assert (again.head, again.nonce(OWNER.address), total(again)) == (told, 2, 10**24 + 5)
    assert again.mine([mint(2)]) == [None]
    again.close()


def test_a_file_that_is_no_journal_is_named(path: Path):
    """Random bytes are reported, not overwritten."""
    path.write_bytes(random.Random(1).randbytes(8192))
    before = path.read_bytes()
    with pytest.raises(DamagedJournal):
        opened(path)
    assert path.read_bytes() == before


def test_the_journal_is_for_its_owner_only(path: Path):
    """It holds the seed of the beacon."""
    chain = opened(path)
    chain.mine([mint(1)])
    assert path.stat().st_mode & 0o077 == 0
    assert path.with_name(path.name + "-wal").stat().st_mode & 0o077 == 0
    chain.close()
