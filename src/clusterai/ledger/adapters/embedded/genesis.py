"""The state a chain begins with: balances, code and storage put in place, then first transactions executed.

The transactions need no signatures and leave no receipts; what they did is simply there in block 0.
"""

import msgspec

from clusterai.ledger.adapters.embedded.evm import (
    BLOCK_GAS_LIMIT,
    Account,
    AccountWrite,
    BlockContext,
    Evm,
    Message,
    SlotWrite,
    Writes,
)
from clusterai.ledger.core.deploy import Plan
from clusterai.protocol.ids import Address
from clusterai.protocol.keccak import keccak


class Allocation(msgspec.Struct, frozen=True):
    address: Address
    balance_wei: int = 0
    code: bytes = b""
    storage: tuple[tuple[int, int], ...] = ()


class FirstTransaction(msgspec.Struct, frozen=True):
    """Of the genesis; `to` None creates a contract at the address that follows from the sender's nonce."""

    sender: Address
    to: Address | None
    data: bytes
    name: str = ""


class Genesis(msgspec.Struct, frozen=True):
    allocations: tuple[Allocation, ...] = ()
    transactions: tuple[FirstTransaction, ...] = ()


class BrokenGenesis(ValueError):
    """The genesis can't be built: {what} failed with {outcome}. Rebuild the contracts' artifacts."""


def genesis_of(plan: Plan, allocations: tuple[Allocation, ...] = ()) -> Genesis:
    """The network's contracts as `plan` lays them out, and `allocations` besides.

    Raises:
        BrokenGenesis: the plan has a contract that this chain can't run.
    """
    assert plan.first_nonce == 0, "in a genesis the deployer's transactions are its first"
    if any(one.name == "DrandBeacon" for one in plan.creations):
        raise BrokenGenesis(
            "the embedded chain can't verify drand's signatures (no EIP-2537): leave `beacon` out of the rules, or deploy to a"
            " chain with the rules of Prague"
        )
    placed = tuple(Allocation(one.address, 0, one.code, one.storage) for one in plan.placements)
    created = tuple(FirstTransaction(plan.deployer, None, one.data, one.name) for one in plan.creations)
    return Genesis((*placed, *allocations), created)


def build(evm: Evm, genesis: Genesis, block: BlockContext) -> list[Writes]:
    """Put the genesis into an empty `evm`; the writes, in order, lead from nothing to the state of block 0.

    Raises:
        BrokenGenesis: a first transaction failed.
    """
    evm.enter(block)
    written = [_allocate(evm, allocation) for allocation in genesis.allocations]
    for transaction in genesis.transactions:
        message = Message(transaction.sender, transaction.to, transaction.data, 0, BLOCK_GAS_LIMIT)
        outcome, writes = evm.execute(message)
        if not outcome.success:
            raise BrokenGenesis(f"the genesis can't be built: {transaction.name} failed with {outcome}")
        written.append(writes)
    return written


def _allocate(evm: Evm, allocation: Allocation) -> Writes:
    code_hash = keccak(allocation.code)
    account = Account(1 if allocation.code else 0, allocation.balance_wei, code_hash)
    writes = Writes(
        accounts=[AccountWrite(allocation.address, evm.account(allocation.address), account)],
        slots=[SlotWrite(allocation.address, key, 0, value) for key, value in allocation.storage if value],
        codes={code_hash: allocation.code} if allocation.code else {},
    )
    evm.apply(writes)
    return writes
