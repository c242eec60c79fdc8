"""x402's facilitator signer on the in-process chain: what its web3 signer does, without a socket."""

from typing import Any

from eth_abi import abi
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak
from x402.mechanisms.evm.types import TransactionReceipt

from clusterai.ledger.adapters.embedded.evm import Message
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.twin import BlockContext, Refused
from clusterai.protocol.ids import Address, address, checksummed
from tests.contracts.bytecode import CHAIN_ID, GAS, BytecodeChain


class ChainSigner:
    """Sends transactions as `sender` on `chain`; the test sets `now_s`."""

    def __init__(self, chain: BytecodeChain, sender: Address, now_s: int) -> None:
        self._chain = chain
        self._sender = sender
        self.now_s = now_s
        self._number = 1
        self._receipts: dict[str, TransactionReceipt] = {}
        self.events: list[Event] = []
        self.gas: list[tuple[str, int]] = []

    def block(self) -> BlockContext:
        return BlockContext(self._number, self.now_s, keccak(self._number.to_bytes(8)))

    def get_addresses(self) -> list[str]:
        return [checksummed(self._sender)]

    def get_chain_id(self) -> int:
        return CHAIN_ID

    def get_code(self, of: str) -> bytes:
        return self._chain.evm.code(address(of))

    def get_balance(self, of: str, token: str) -> int:
        return self._chain.read("Token", "balanceOf", address(of))

    def read_contract(self, at: str, contract_abi: list[dict[str, Any]], name: str, *args: Any) -> Any:
        entry, data = _encode(contract_abi, name, args)
        self._chain.enter(self.block())
        outcome = self._chain.evm.call(Message(self._sender, address(at), data, 0, GAS))
        if not outcome.success:
            raise RuntimeError(f"execution reverted: {self._chain.codec.revert(outcome.output)}")
        values = abi.decode([_canonical(one) for one in entry["outputs"]], outcome.output)
        return values[0] if len(values) == 1 else values

    def write_contract(
        self,
        at: str,
        contract_abi: list[dict[str, Any]],
        name: str,
        *args: Any,
        data_suffix: str | None = None,
    ) -> str:
        _, data = _encode(contract_abi, name, args)
        suffix = bytes.fromhex(data_suffix.removeprefix("0x")) if data_suffix else b""
        transaction = self.send_transaction(at, data + suffix)
        self.gas.append((name, self._chain.gas_used))
        return transaction

    def send_transaction(self, to: str, data: bytes) -> str:
        outcome = self._chain.send(address(to), data, self._sender, self.block())
        if isinstance(outcome, Refused):
            raise RuntimeError(f"execution reverted: {outcome.reason}")
        self._number += 1
        self.events.extend(outcome)
        transaction = "0x" + self._number.to_bytes(32).hex()
        logs = [
            {"address": checksummed(log.address), "topics": list(log.topics), "data": log.data}
            for log in self._chain.logs
        ]
        self._receipts[transaction] = TransactionReceipt(1, self._number, transaction, logs)
        return transaction

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        return self._receipts[tx_hash]

    def verify_typed_data(
        self,
        address: str,
        domain: Any,
        types: dict[str, list[Any]],
        primary_type: str,
        message: dict[str, Any],
        signature: bytes,
    ) -> bool:
        fields: dict[str, list[dict[str, str]]] = {
            kind: [_field(one) for one in entries]
            for kind, entries in types.items()
            if kind != "EIP712Domain"
        }
        plain: dict[str, Any] = (
            {
                "name": domain.name,
                "version": domain.version,
                "chainId": domain.chain_id,
                "verifyingContract": domain.verifying_contract,
            }
            if hasattr(domain, "chain_id")
            else domain
        )
        signable = encode_typed_data(domain_data=plain, message_types=fields, message_data=message)
        return Account.recover_message(signable, signature=signature).lower() == address.lower()


def _field(field: Any) -> dict[str, str]:
    return {"name": field.name, "type": field.type} if hasattr(field, "name") else field


def _encode(
    contract_abi: list[dict[str, Any]], name: str, args: tuple[Any, ...]
) -> tuple[dict[str, Any], bytes]:
    entry = next(one for one in contract_abi if one["type"] == "function" and one["name"] == name)
    types = [_canonical(one) for one in entry["inputs"]]
    plain = [
        bytes.fromhex(value[2:]) if kind == "bytes32" and isinstance(value, str) else value
        for kind, value in zip(types, args, strict=True)
    ]
    return entry, keccak(f"{name}({','.join(types)})".encode())[:4] + abi.encode(types, plain)


def _canonical(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(_canonical, entry['components']))}){kind.removeprefix('tuple')}"
