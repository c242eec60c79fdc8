"""The compiled contracts as package data: running the network needs no Solidity compiler.

`contracts/build.mjs` writes the JSON files; continuous integration rebuilds them and compares every byte.
"""

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

Name = Literal[
    "Token",
    "Registry",
    "Channels",
    "ERC3009DepositCollector",
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
    "Multicall3",
]


class Slot(msgspec.Struct, frozen=True):
    """Where a state variable lies: storage slot, and byte offset from the slot's low end."""

    slot: int
    offset: int


class Artifact(msgspec.Struct, frozen=True, rename="camel"):
    """`bytecode` creates the contract (constructor arguments go behind it), `deployed_bytecode` is what then runs."""

    name: str
    compiler: str
    abi: list[dict[str, Any]]
    bytecode: str
    deployed_bytecode: str
    immutables: int
    slots: dict[str, Slot]

    def creation(self) -> bytes:
        return bytes.fromhex(self.bytecode[2:])

    def runtime(self) -> bytes:
        """Code that can be placed at an address as it is; only contracts without immutables have it."""
        assert self.immutables == 0, f"{self.name} has immutables: deploy it"
        return bytes.fromhex(self.deployed_bytecode[2:])


@cache
def load(name: Name) -> Artifact:
    return msgspec.json.decode(files(__name__).joinpath(f"{name}.json").read_bytes(), type=Artifact)
