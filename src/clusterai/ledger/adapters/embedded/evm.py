"""One EVM in process whose every transaction yields the exact set of what it wrote.

revm, as pyrevm hands it over, never ends a transaction: its journal grows, accounts stay warm, and gas reads low.
So each transaction runs above a checkpoint; the journal's text tells what was touched; the checkpoint is reverted,
which empties the journal; and what changed goes into the database below:

    [database] --checkpoint--> run --journal_str--> parse --revert--> [database] + writes

The next transaction then starts cold with an empty journal, as on any other chain: its gas equals that of other
clients to the unit (tests compare with anvil), memory doesn't grow, and the writes are what the journal on disk
stores. Cost: 10 microseconds for the text, and 5 for each slot that changed.

What differs from a public chain: gas is metered and limited but free; BLOCKHASH is a constant of the number.
"""

import re
from collections.abc import Iterable
from typing import Any, cast

import msgspec
import pyrevm

from clusterai.ledger.adapters.embedded.transactions import AccessEntry
from clusterai.protocol.ids import Address, hex0x

BLOCK_GAS_LIMIT = 30_000_000
EMPTY_CODE = bytes.fromhex("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470")
SPEC = "CANCUN"


class Account(msgspec.Struct, frozen=True):
    nonce: int = 0
    balance: int = 0
    code_hash: bytes = EMPTY_CODE


ABSENT = Account()


class SlotWrite(msgspec.Struct, frozen=True):
    address: Address
    key: int
    before: int
    after: int


class AccountWrite(msgspec.Struct, frozen=True):
    address: Address
    before: Account
    after: Account


class Writes(msgspec.Struct):
    accounts: list[AccountWrite] = []
    slots: list[SlotWrite] = []
    codes: dict[bytes, bytes] = {}


class Log(msgspec.Struct, frozen=True):
    address: Address
    topics: tuple[bytes, ...]
    data: bytes


class Outcome(msgspec.Struct, frozen=True):
    """How a transaction or call ended; `halt` names the reason where it was neither a return nor a revert."""

    success: bool
    output: bytes
    gas_used: int
    gas_refunded: int = 0
    logs: tuple[Log, ...] = ()
    created: Address | None = None
    halt: str = ""


class Refused(ValueError):
    """The transaction can't even begin: {why}."""


class Message(msgspec.Struct, frozen=True):
    sender: Address
    to: Address | None
    data: bytes
    value: int
    gas: int
    access: tuple[AccessEntry, ...] = ()


class BlockContext(msgspec.Struct, frozen=True):
    number: int
    timestamp_s: int
    prevrandao: bytes


class Evm:
    """State lives in revm's database; accounts are mirrored here, slots are not."""

    def __init__(self, chain_id: int) -> None:
        # pyrevm's stubs lag behind its constructors, so it is typed here, at the one place that touches it
        self._make: Any = pyrevm
        cfg = self._make.CfgEnv(chain_id=chain_id)
        self._evm: Any = self._make.EVM(env=self._make.Env(cfg=cfg), gas_limit=BLOCK_GAS_LIMIT, spec_id=SPEC)
        self._names: dict[Address, str] = {}
        self.accounts: dict[Address, Account] = {}
        self._codes: dict[bytes, bytes] = {EMPTY_CODE: b""}
        self._access_set = False

    def enter(self, block: BlockContext) -> None:
        self._evm.set_block_env(
            self._make.BlockEnv(
                number=block.number,
                timestamp=block.timestamp_s,
                prevrandao=block.prevrandao,
                basefee=0,
                gas_limit=BLOCK_GAS_LIMIT,
                excess_blob_gas=0,
            )
        )

    def account(self, address: Address) -> Account:
        return self.accounts.get(address, ABSENT)

    def code(self, address: Address) -> bytes:
        return self._codes[self.account(address).code_hash]

    def storage(self, address: Address, key: int) -> int:
        checkpoint = self._evm.snapshot()
        try:
            return cast("int", self._evm.storage(self._name(address), key))
        finally:
            self._evm.revert(checkpoint)

    def call(self, message: Message) -> Outcome:
        """Run without keeping anything.

        Raises:
            Refused: less gas than the data alone costs, more than a block holds, or too little balance.
        """
        checkpoint = self._evm.snapshot()
        try:
            return self._run(message)
        finally:
            self._evm.revert(checkpoint)

    def execute(self, message: Message) -> tuple[Outcome, Writes]:
        """Run, keep what it wrote, and count the sender's nonce up by one whatever happened.

        Raises:
            Refused: as `call`; then nothing was written.
        """
        text = ""
        checkpoint = self._evm.snapshot()
        try:
            outcome = self._run(message)
            if outcome.success:
                text = cast("str", self._evm.journal_str)
        finally:
            self._evm.revert(checkpoint)
        touched = _touched(text)
        touched.setdefault(message.sender, Touched(self.account(message.sender)))
        writes = self._changes(touched, message.sender)
        self.apply(writes)
        return outcome, writes

    def apply(self, writes: Writes) -> None:
        """Put known writes into the state: those of an execution, of the genesis, or of the journal on disk."""
        make_info = self._make.AccountInfo
        self._codes.update(writes.codes)
        for write in writes.accounts:
            self._store(write.address, write.after)
            after = write.after
            code = writes.codes.get(after.code_hash)
            info = make_info(
                balance=after.balance, nonce=after.nonce, code_hash=after.code_hash, code=code or None
            )
            self._evm.insert_account_info(self._name(write.address), info)
        evm = self._evm
        for slot in writes.slots:
            # The insertion loads the account into the journal; reverting takes it out again, so that the next
            # insertion also reaches the database instead of the journal.
            checkpoint = evm.snapshot()
            evm.insert_account_storage(self._name(slot.address), slot.key, slot.after)
            evm.revert(checkpoint)

    def _store(self, address: Address, account: Account) -> None:
        if account == ABSENT:
            self.accounts.pop(address, None)
        else:
            self.accounts[address] = account

    def _changes(self, touched: "dict[Address, Touched]", sender: Address) -> Writes:
        writes = Writes([], [], {})
        for address, found in touched.items():
            before, after = self.account(address), found.account
            if address == sender:
                # message_call leaves the nonce as it was, a deployment counts it itself
                after = msgspec.structs.replace(after, nonce=before.nonce + 1)
            if after != before:
                writes.accounts.append(AccountWrite(address, before, after))
                if after.code_hash not in self._codes:
                    writes.codes[after.code_hash] = found.code
            for key, old, new in found.slots:
                writes.slots.append(SlotWrite(address, key, old, new))
        return writes

    def _run(self, message: Message) -> Outcome:
        balance = self.account(message.sender).balance
        if balance < message.value:
            raise Refused(
                f"insufficient funds for gas * price + value: address {hex0x(message.sender)} "
                f"have {balance} want {message.value}"
            )
        if message.gas > BLOCK_GAS_LIMIT:
            raise Refused(f"exceeds block gas limit: {message.gas} of {BLOCK_GAS_LIMIT}")
        self._set_access(message.access)
        self._evm.reset_transient_storage()
        sender, created, output = self._name(message.sender), None, b""
        try:
            if message.to is None:
                name = cast("str", self._evm.deploy(sender, message.data, message.value, message.gas, None))
                created = Address(bytes.fromhex(name[2:]))
            else:
                output = cast(
                    "bytes",
                    self._evm.message_call(
                        sender, self._name(message.to), message.data, message.value, message.gas, None, False
                    ),
                )
        except RuntimeError as error:
            return _failure(str(error))
        result = self._evm.result
        return Outcome(
            success=True,
            output=output,
            gas_used=result.gas_used,
            gas_refunded=result.gas_refunded,
            logs=tuple(map(_log, result.logs)),
            created=created,
        )

    def _set_access(self, access: tuple[AccessEntry, ...]) -> None:
        if access or self._access_set:
            entries = [(self._name(entry.address), list(entry.slots)) for entry in access]
            self._evm.set_tx_env(self._make.TxEnv(access_list=entries))
            self._access_set = bool(access)

    def _name(self, address: Address) -> str:
        name = self._names.get(address)
        if name is None:
            if len(self._names) > 100_000:
                self._names.clear()
            name = self._names[address] = "0x" + address.hex()
        return name


class Touched(msgspec.Struct, frozen=True):
    account: Account
    code: bytes = b""
    slots: tuple[tuple[int, int, int], ...] = ()
    """(key, before, after) of those that changed"""


_FAILED = re.compile(r"(Revert|Halt) \{ (?:reason: (.*), )?gas_used: (\d+)(?:, output: 0x([0-9a-f]*))? \}")
_HEAD = re.compile(
    r"0x([0-9a-f]{40}): Account \{ info: AccountInfo \{ balance: (\d+), nonce: (\d+), "
    r"code_hash: 0x([0-9a-f]{64}), code: "
)
_CODE = re.compile(r"bytecode: 0x([0-9a-f]*), state: \w+ \{ len: (\d+)")
_SLOT = re.compile(r"(\d+): StorageSlot \{ previous_or_original_value: (\d+), present_value: (\d+) \}")


def _failure(text: str) -> Outcome:
    found = _FAILED.search(text)
    if found is None:
        raise Refused(_refusal(text))
    kind, reason, gas, output = found.groups()
    return Outcome(
        success=False,
        output=bytes.fromhex(output or ""),
        gas_used=int(gas),
        halt=cast("str", reason) if kind == "Halt" else "",
    )


def _refusal(text: str) -> str:
    """go-ethereum's words where clients know them."""
    if text.startswith("Initial gas spend"):
        return "intrinsic gas too low: " + text.split(" Error")[0]
    if "RejectCallerWithCode" in text:
        return "sender not an eoa"
    if "CreateInitCodeSizeLimit" in text:
        return "max initcode size exceeded"
    return text[:200]


def _touched(text: str) -> dict[Address, Touched]:
    """Read the debug text of revm's journaled state (revm 8.0, the version inside pyrevm 0.3.7).

    A text of another shape must not be taken for "nothing changed": the end of the state is asserted.
    """
    found: dict[Address, Touched] = {}
    if not text:
        return found
    end = text.find("}, transient_storage: {")
    at = len("JournaledState { state: {")
    while at < end:
        head = _HEAD.match(text, at)
        assert head is not None, "pyrevm's journal text changed its shape: pin pyrevm==0.3.7"
        slots_at = text.index(", storage: {", head.end()) + len(", storage: {")
        slots_end = text.index("}, status: AccountStatus(", slots_at)
        status_at = slots_end + len("}, status: AccountStatus(")
        status_end = text.index(")", status_at)
        address = Address(bytes.fromhex(head[1]))
        status = text[status_at:status_end]
        found[address] = _account(text, head, slots_at, slots_end, status)
        at = status_end + len(") }, ")
    assert end > 0, "pyrevm's journal text changed its shape: pin pyrevm==0.3.7"
    return found


def _account(text: str, head: re.Match[str], slots_at: int, slots_end: int, status: str) -> Touched:
    if "SelfDestructed" in status:
        # revm marks only those created in the same transaction (EIP-6780), which had no storage before
        return Touched(ABSENT)
    account = Account(int(head[3]), int(head[2]), bytes.fromhex(head[4]))
    code = b""
    if "Created" in status and account.code_hash != EMPTY_CODE:
        shown = _CODE.search(text, head.end(), slots_at)
        assert shown is not None, "pyrevm's journal text changed its shape: pin pyrevm==0.3.7"
        code = bytes.fromhex(shown[1])[: int(shown[2])]
    changed: Iterable[tuple[int, int, int]] = (
        (int(key), int(old), int(new))
        for key, old, new in cast("list[tuple[str, str, str]]", _SLOT.findall(text, slots_at, slots_end))
        if old != new
    )
    return Touched(account, code, tuple(changed))


def _log(log: Any) -> Log:
    topics, data = log.data
    return Log(Address(bytes.fromhex(log.address[2:])), tuple(topics), data)
