"""Calls and events between structs and the chain's bytes, by the committed ABIs and nothing else.

The rule that saves a table: a call's method is the struct's name with a small first letter, an event's struct has the
event's name, and fields stand in the ABI's order. `Codec` is built once for a network; encoding a call takes about
30 microseconds, and 100 for a claim of a hundred rows is a millisecond.
"""

from typing import Any, cast

import msgspec
from eth_abi import abi
from eth_abi.exceptions import DecodingError

from clusterai.ledger.artifacts import Artifact, Name, load
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.lease_events import AuditParameters
from clusterai.ledger.core.vault_calls import DatasetTerms
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import Terms
from clusterai.protocol.pots import Pot
from clusterai.protocol.statements import Verdict
from clusterai.protocol.vaults import Grant

PANIC = bytes.fromhex("4e487b71")
"""Selector of Panic(uint256): arithmetic that overflowed, for us."""

MAX_VOTE_BYTES = 8_192
"""A proof in the longest list is 13 digests; one of 2^32 leaves would be 32."""

_CONTRACTS: tuple[Name, ...] = (
    "Token",
    "Registry",
    "Channels",
    "Court",
    "Credit",
    "Panel",
    "Delegations",
    "Leases",
    "Audits",
    "Deliveries",
    "Disputes",
    "Vaults",
    "Rewards",
    "ChainBeacon",
    "DrandBeacon",
    "ERC3009DepositCollector",
    "Multicall3",
)
_EVENT_NAMES = {"Transfer": "Transferred"}
"""Where a standard fixes the event's name, and our struct has a verb's past form like all others."""


_STRUCTS: dict[type[Any], type[Any]] = {
    events.LeaseOpened: Terms,
    events.AuditParametersSet: AuditParameters,
    events.DatasetListed: DatasetTerms,
    events.AccessGranted: Grant,
    events.PotOpened: Pot,
}
"""What the one struct in an event's data is."""


class _Method(msgspec.Struct, frozen=True):
    selector: bytes
    types: tuple[str, ...]


class _Log(msgspec.Struct, frozen=True):
    """How to read one event: `order` maps ABI positions to (is indexed, position among those)."""

    kind: type[Any]
    indexed: tuple[str, ...]
    data: tuple[str, ...]
    order: tuple[tuple[bool, int], ...]
    is_static: bool


class Codec:
    """Encodes calls to (recipient, data), decodes logs to events and revert data to names."""

    def __init__(self, addresses: Addresses) -> None:
        self._to = {
            "Token": addresses.token,
            "Registry": addresses.registry,
            "Channels": addresses.channels,
            "Court": addresses.court,
            "Credit": addresses.credit,
            "Panel": addresses.panel,
            "Delegations": addresses.delegations,
            "Leases": addresses.leases,
            "Audits": addresses.audits,
            "Deliveries": addresses.deliveries,
            "Disputes": addresses.disputes,
            "Vaults": addresses.vaults,
            "Rewards": addresses.rewards,
            "ChainBeacon": addresses.beacon,
            "DrandBeacon": addresses.beacon,
            "ERC3009DepositCollector": addresses.collector,
            "Multicall3": addresses.multicall,
        }
        self._methods: dict[type, _Method] = {}
        self._logs: dict[tuple[Address, bytes], _Log] = {}
        self._errors: dict[bytes, str] = {PANIC: "Panic"}
        for name in _CONTRACTS:
            self._read(name, load(name))
        for kind, name in calls.CONTRACT.items():
            self._methods[kind] = _method(load(cast("Name", name)), kind)

    def encode(self, call: calls.Call) -> tuple[Address, bytes]:
        """The recipient and the data of the transaction that makes this call."""
        method = self._methods[type(call)]
        return self._to[calls.CONTRACT[type(call)]], method.selector + abi.encode(
            method.types, _arguments(call)
        )

    def vote(self, data: bytes) -> calls.Vote | None:
        """The vote that a transaction's data asks the Court to count; None for other calls and for nonsense.

        As lenient as the contract: what another encoding of the same vote says is said, too.
        """
        method = self._methods[calls.Vote]
        if data[:4] != method.selector or len(data) > MAX_VOTE_BYTES:
            return None
        try:
            verdict, proof, signature = abi.decode(method.types, data[4:], strict=False)
            statement = canonical.decode(canonical.encode(Verdict(*map(_value, verdict))), Verdict)
        except (DecodingError, OverflowError, Malformed):
            return None
        return calls.Vote(statement, tuple(map(Digest, proof)), signature) if len(signature) == 65 else None

    def event(self, address: Address, topics: tuple[bytes, ...], data: bytes) -> events.Event | None:
        """The event that a log tells; None for those that no struct stands for."""
        log = self._logs.get((address, topics[0])) if topics else None
        if log is None:
            return None
        indexed = [_word(kind, topic) for kind, topic in zip(log.indexed, topics[1:], strict=True)]
        if log.is_static:
            # eth_abi takes 50 microseconds for such a log, which is all but one of ours; this takes 5
            plain = [_word(kind, data[32 * at : 32 * at + 32]) for at, kind in enumerate(log.data)]
        else:
            plain = list(map(_value, abi.decode(log.data, data)))
            struct = _STRUCTS.get(log.kind)
            if struct is not None:
                plain = [struct(*map(_value, one)) if isinstance(one, tuple) else one for one in plain]
        return cast(
            "events.Event",
            log.kind(*[(indexed if is_indexed else plain)[at] for is_indexed, at in log.order]),
        )

    def topics(self) -> list[tuple[Address, bytes]]:
        """Contract and first topic of all events that have structs, for log filters."""
        return list(self._logs)

    def revert(self, data: bytes) -> str:
        """The name of the error in a revert's data; "" where a call was refused without any."""
        return self._errors.get(data[:4], "0x" + data[:4].hex()) if data else ""

    def _read(self, name: Name, artifact: Artifact) -> None:
        for entry in artifact.abi:
            if entry["type"] == "error":
                self._errors[keccak(_signature(entry).encode())[:4]] = entry["name"]
            elif entry["type"] == "event":
                kind = _event_kind(entry["name"])
                if kind is not None:
                    topic = keccak(_signature(entry).encode())
                    self._logs[self._to[name], topic] = _log(kind, entry["inputs"])


def _event_kind(name: str) -> type[Any] | None:
    return getattr(events, _EVENT_NAMES.get(name, name), None)


def _method(artifact: Artifact, kind: type) -> _Method:
    name = kind.__name__[0].lower() + kind.__name__[1:]
    found = [entry for entry in artifact.abi if entry["type"] == "function" and entry["name"] == name]
    if len(found) > 1:  # overloaded: ours is the one with as many arguments
        many = len(msgspec.structs.fields(kind))
        found = [entry for entry in found if len(entry["inputs"]) == many]
    assert len(found) == 1, f"{artifact.name}.{name}: {len(found)} functions"
    types = tuple(map(_canonical, found[0]["inputs"]))
    return _Method(keccak(_signature(found[0]).encode())[:4], types)


def _arguments(call: calls.Call) -> list[Any]:
    match call:
        case calls.Deposit(config, amount):
            return [_plain(config), amount, ZERO_ADDRESS, b""]
        case calls.Claim(claims):
            return [
                [
                    ((_plain(row.config), row.max_claimable), row.signature, row.total_claimed)
                    for row in claims
                ]
            ]
        case _:
            return [_plain(getattr(call, field)) for field in call.__struct_fields__]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, cast("tuple[Any, ...]", value)))
    return _plain(msgspec.structs.astuple(value)) if isinstance(value, msgspec.Struct) else value


def _value(value: Any) -> Any:
    """eth_abi gives addresses as hex text."""
    if isinstance(value, tuple):
        return tuple(map(_value, cast("tuple[Any, ...]", value)))
    return Address(bytes.fromhex(value[2:])) if isinstance(value, str) else value


def _log(kind: type[Any], inputs: list[dict[str, Any]]) -> _Log:
    indexed: list[str] = []
    data: list[str] = []
    order: list[tuple[bool, int]] = []
    for entry in inputs:
        part = indexed if entry["indexed"] else data
        order.append((entry["indexed"], len(part)))
        part.append(_canonical(entry))
    assert len(order) == len(kind.__struct_fields__), f"{kind.__name__} and its event differ"
    return _Log(kind, tuple(indexed), tuple(data), tuple(order), all(map(_is_word, data)))


def _is_word(kind: str) -> bool:
    return kind in ("address", "bytes32", "bool") or (kind.startswith("uint") and not kind.endswith("]"))


def _word(kind: str, word: bytes) -> Any:
    """A value of one of `_is_word`'s types out of its 32 bytes."""
    assert len(word) == 32, "a log of our contracts has whole words"
    if kind == "address":
        return Address(word[12:])
    if kind == "bool":
        return word[31] == 1
    return int.from_bytes(word) if kind != "bytes32" else word


def _signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(map(_canonical, entry['inputs']))})"


def _canonical(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(_canonical, entry['components']))}){kind.removeprefix('tuple')}"
