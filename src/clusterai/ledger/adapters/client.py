"""The chain as the daemons see it: typed reads, fees, receipts. Sending is the outbox's, following the follower's."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from eth_abi import abi
from eth_abi.exceptions import DecodingError

from clusterai.ledger.adapters.jsonrpc import CallReverted, JsonRpc, Request, RpcRefused
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.artifacts import Name, load
from clusterai.ledger.core.abi import Codec
from clusterai.ledger.core.calls import Call
from clusterai.ledger.core.transaction import Fees
from clusterai.protocol.ids import Address, Digest, address, digest, hex0x
from clusterai.protocol.keccak import keccak


class OtherChain(ValueError):
    """The chain that answers is not the one of the manifest: {why}. Check the RPC address and network.json."""


class Refused(ValueError):
    """A read was refused by the contract: {reason}."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Head(msgspec.Struct, frozen=True):
    number: int
    hash: Digest
    parent: Digest
    timestamp_s: int
    base_fee_wei: int = 0


class TransactionReceipt(msgspec.Struct, frozen=True):
    """What became of a transaction; `returned` is what it reverted with, where the chain tells. `fee_wei`: of the chain's coin."""

    transaction: Digest
    block: int
    block_hash: Digest
    success: bool
    gas_used: int
    created: Address | None
    returned: bytes
    fee_wei: int = 0


class _Read(msgspec.Struct, frozen=True):
    to: Address
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class ChainClient:
    """Reads of one network's chain. Use inside `async with`: entering checks that the chain is the manifest's."""

    def __init__(self, network: Network, rpc: JsonRpc | None = None) -> None:
        self.network = network
        self.rpc = rpc or JsonRpc(network.rpc_urls)
        self.codec = Codec(network.contracts)
        self._reads: dict[tuple[str, str], _Read] = {}

    async def __aenter__(self) -> "ChainClient":
        await self.rpc.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.rpc.__aexit__()

    async def check(self) -> None:
        """Is this the manifest's chain?

        Raises:
            OtherChain: another chain id or genesis. ChainDown.
        """
        chain_id, genesis = await self.rpc.batch(
            [Request("eth_chainId", ()), Request("eth_getBlockByNumber", ("0x0", False))]
        )
        if chain_id != hex(self.network.chain_id):
            raise OtherChain(f"chain id {chain_id}, the manifest says {self.network.chain_id:#x}")
        if not isinstance(genesis, dict) or genesis.get("hash") != hex0x(self.network.genesis):  # pyright: ignore[reportUnknownMemberType]
            raise OtherChain(f"its genesis is not {hex0x(self.network.genesis)}: it was begun anew")

    async def head(self) -> Head:
        found = await self.block("latest")
        assert found is not None, "every chain has a latest block"
        return found

    async def block(self, which: int | str) -> Head | None:
        name = hex(which) if isinstance(which, int) else which
        found = await self.rpc.ask("eth_getBlockByNumber", name, False)
        return None if found is None else head_of(found)

    async def balance_wei(self, of: Address) -> int:
        return int(await self.rpc.ask("eth_getBalance", hex0x(of), "latest"), 16)

    async def nonce(self, of: Address) -> int:
        return int(await self.rpc.ask("eth_getTransactionCount", hex0x(of), "pending"), 16)

    async def read(self, contract: Name, function: str, *arguments: Any, block: int | str = "latest") -> Any:
        """Ask a view: one value, or a tuple where the function returns several. Addresses come as raw bytes.

        Raises:
            Refused: it reverted, with the custom error's name. ChainDown, RpcRefused.
        """
        how = self._read_of(contract, function)
        data = how.selector + abi.encode(how.inputs, arguments)
        name = hex(block) if isinstance(block, int) else block
        try:
            answer = await self.rpc.ask("eth_call", {"to": hex0x(how.to), "data": hex0x(data)}, name)
        except CallReverted as error:
            raise Refused(self.codec.revert(error.data) or error.message) from None
        return _outputs(how, bytes.fromhex(answer[2:]))

    async def read_many(self, reads: Sequence[tuple[Name, str, Sequence[Any]]]) -> list[Any]:
        """Several views in one request, of one block where the chain answers a batch at once."""
        hows = [(self._read_of(contract, function), arguments) for contract, function, arguments in reads]
        requests = [
            Request(
                "eth_call",
                (
                    {"to": hex0x(how.to), "data": hex0x(how.selector + abi.encode(how.inputs, arguments))},
                    "latest",
                ),
            )
            for how, arguments in hows
        ]
        results: list[Any] = []
        for (how, _), answer in zip(hows, await self.rpc.batch(requests), strict=True):
            if isinstance(answer, CallReverted):
                raise Refused(self.codec.revert(answer.data) or answer.message)
            if isinstance(answer, RpcRefused):
                raise answer
            results.append(_outputs(how, bytes.fromhex(answer[2:])))
        return results

    async def estimate(self, sender: Address, call: Call) -> int:
        """Gas for `call`, with a fifth to spare for a state that moves on.

        Raises:
            CallReverted: it would revert now. ChainDown, RpcRefused.
        """
        to, data = self.codec.encode(call)
        gas = await self.rpc.ask(
            "eth_estimateGas", {"from": hex0x(sender), "to": hex0x(to), "data": hex0x(data)}
        )
        return int(gas, 16) * 6 // 5

    async def fees(self) -> Fees:
        """Twice the base fee and the chain's own tip: six full blocks may come before it is too little."""
        block, tip = await self.rpc.batch(
            [Request("eth_getBlockByNumber", ("latest", False)), Request("eth_maxPriorityFeePerGas", ())]
        )
        base = head_of(block).base_fee_wei
        priority = int(tip, 16) if isinstance(tip, str) and base else 0
        return Fees(2 * base + priority, priority)

    async def sent_to(self, contract: Name, blocks: Sequence[int]) -> list[list[bytes]]:
        """Per block the data of the transactions that were sent straight to a contract, in order, failed ones too; none
        where the block isn't there.

        Raises:
            ChainDown, RpcRefused.
        """
        to = hex0x(_address_of(self.network, contract))
        requests = [Request("eth_getBlockByNumber", (hex(number), True)) for number in blocks]
        found = await self.rpc.batch(requests)
        for answer in found:
            if isinstance(answer, RpcRefused):
                raise answer
        return [_data_sent_to(to, block) for block in found]

    async def receipts(self, transactions: Sequence[Digest]) -> list[TransactionReceipt | None]:
        requests = [Request("eth_getTransactionReceipt", (hex0x(one),)) for one in transactions]
        return [_receipt(found) for found in await self.rpc.batch(requests)]

    def _read_of(self, contract: Name, function: str) -> _Read:
        found = self._reads.get((contract, function))
        if found is None:
            found = self._reads[contract, function] = _read(self.network, contract, function)
        return found


def _read(network: Network, contract: Name, function: str) -> _Read:
    entries = [
        entry for entry in load(contract).abi if entry["type"] == "function" and entry["name"] == function
    ]
    assert len(entries) == 1, f"{contract}.{function}: {len(entries)} functions of that name"
    inputs = tuple(_kind(one) for one in entries[0]["inputs"])
    outputs = tuple(_kind(one) for one in entries[0]["outputs"])
    selector = keccak(f"{function}({','.join(inputs)})".encode())[:4]
    return _Read(_address_of(network, contract), selector, inputs, outputs)


def _address_of(network: Network, contract: Name) -> Address:
    fields = {
        "ChainBeacon": "beacon",
        "DrandBeacon": "beacon",
        "ERC3009DepositCollector": "collector",
        "Multicall3": "multicall",
    }
    return cast("Address", getattr(network.contracts, fields.get(contract, contract.lower())))


def _kind(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(_kind, entry['components']))}){kind.removeprefix('tuple')}"


def _outputs(how: _Read, data: bytes) -> Any:
    try:
        values = tuple(map(_raw, abi.decode(how.outputs, data)))
    except DecodingError as error:
        raise OtherChain(f"no contract of ours answers at {hex0x(how.to)}: {error}") from None
    return values[0] if len(values) == 1 else values


def _raw(value: Any) -> Any:
    """eth_abi gives addresses as hex text."""
    if isinstance(value, str) and len(value) == 42 and value.startswith("0x"):
        return address(value)
    if isinstance(value, tuple):
        return tuple(map(_raw, cast("tuple[Any, ...]", value)))
    return value


def head_of(block: dict[str, Any]) -> Head:
    return Head(
        int(block["number"], 16),
        digest(block["hash"]),
        digest(block["parentHash"]),
        int(block["timestamp"], 16),
        int(block.get("baseFeePerGas") or "0x0", 16),
    )


def _data_sent_to(to: str, block: Any) -> list[bytes]:
    """`to` as small hex; a block that isn't there is None."""
    sent: list[dict[str, Any]] = block["transactions"] if block else []
    return [bytes.fromhex(it["input"][2:]) for it in sent if (it.get("to") or "").lower() == to]


def _receipt(found: Any) -> TransactionReceipt | None:
    if not isinstance(found, dict):
        return None
    receipt = cast("dict[str, Any]", found)
    created, returned = receipt.get("contractAddress"), receipt.get("revertReason") or "0x"
    return TransactionReceipt(
        transaction=digest(receipt["transactionHash"]),
        block=int(receipt["blockNumber"], 16),
        block_hash=digest(receipt["blockHash"]),
        success=receipt["status"] == "0x1",
        gas_used=int(receipt["gasUsed"], 16),
        created=address(created) if created else None,
        returned=bytes.fromhex(returned[2:]),
        fee_wei=int(receipt["gasUsed"], 16) * int(receipt.get("effectiveGasPrice") or "0x0", 16),
    )
