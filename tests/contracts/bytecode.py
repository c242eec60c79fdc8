"""The compiled contracts on an in-process EVM, with the same door as `TwinChain`."""

from typing import Any

import msgspec
from eth_abi import abi
from eth_hash.auto import keccak

from clusterai.ledger.adapters.embedded.evm import BlockContext as EvmBlock
from clusterai.ledger.adapters.embedded.evm import Evm, Log, Message, Outcome
from clusterai.ledger.adapters.embedded.genesis import build, genesis_of
from clusterai.ledger.artifacts import load
from clusterai.ledger.core.abi import Codec
from clusterai.ledger.core.calls import Call
from clusterai.ledger.core.deploy import Plan
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.twin import BlockContext, Refused
from clusterai.protocol.ids import Address

CHAIN_ID = 31415
GAS = 29_000_000


class BytecodeChain:
    """Executes calls on the bytecode; keeps gas and logs of the last one."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.codec = Codec(plan.addresses)
        self.evm = Evm(CHAIN_ID)
        build(self.evm, genesis_of(plan), EvmBlock(0, 1, bytes(32)))
        self.gas_used = 0
        self.logs: tuple[Log, ...] = ()

    def execute(self, call: Call, sender: Address, block: BlockContext) -> tuple[Event, ...] | Refused:
        to, data = self.codec.encode(call)
        return self.send(to, data, sender, block)

    def enter(self, block: BlockContext) -> None:
        """Reads see this block."""
        self.evm.enter(EvmBlock(block.number, block.timestamp_s, block.prevrandao))

    def send(
        self, to: Address, data: bytes, sender: Address, block: BlockContext
    ) -> tuple[Event, ...] | Refused:
        self.enter(block)
        outcome, _ = self.evm.execute(Message(sender, to, data, 0, GAS))
        self.gas_used = outcome.gas_used
        self.logs = outcome.logs
        if not outcome.success:
            assert not outcome.halt, f"{outcome.halt} in {to.hex()}"
            return Refused(self.codec.revert(outcome.output))
        found = (self.codec.event(log.address, log.topics, log.data) for log in outcome.logs)
        return tuple(event for event in found if event is not None)

    def transact(
        self, contract: str, function: str, sender: Address, block: BlockContext, *arguments: Any
    ) -> tuple[Event, ...] | Refused:
        """Any function, also those that no call struct stands for; overloads are told apart by their count."""
        _, to, data = self._encode(contract, function, arguments)
        return self.send(to, data, sender, block)

    def read(self, contract: str, function: str, *arguments: Any) -> Any:
        """A view's result: one value, or a tuple of several."""
        entry, to, data = self._encode(contract, function, arguments)
        outcome: Outcome = self.evm.call(Message(self.plan.deployer, to, data, 0, GAS))
        assert outcome.success, self.codec.revert(outcome.output)
        values = abi.decode([_canonical(one) for one in entry["outputs"]], outcome.output)
        return values[0] if len(values) == 1 else values

    def _encode(
        self, contract: str, function: str, arguments: tuple[Any, ...]
    ) -> tuple[dict[str, Any], Address, bytes]:
        entry = next(
            one
            for one in load(contract).abi  # pyright: ignore[reportArgumentType]
            if one["type"] == "function" and one["name"] == function and len(one["inputs"]) == len(arguments)
        )
        types = [_canonical(one) for one in entry["inputs"]]
        selector = keccak(f"{function}({','.join(types)})".encode())[:4]
        to: Address = getattr(self.plan.addresses, _FIELDS.get(contract, contract.lower()))
        plain = [msgspec.structs.astuple(a) if isinstance(a, msgspec.Struct) else a for a in arguments]
        return entry, to, selector + abi.encode(types, plain)


_FIELDS = {"ERC3009DepositCollector": "collector", "Multicall3": "multicall", "ChainBeacon": "beacon"}


def _canonical(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(_canonical, entry['components']))}){kind.removeprefix('tuple')}"
