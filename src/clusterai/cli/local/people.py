"""The participants of a local network and their keys: a cold owner and a hot key each, and the treasury.

On a real network the owner keys never lie on the machines; here one folder plays everybody.
"""

from pathlib import Path

import msgspec

from clusterai.cli.local.folder import DataFolder, node_name, validator_name
from clusterai.ledger.adapters.network import make_key
from clusterai.protocol.ids import Role
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.signing import Key

STAKE_WEI = 1_000 * WEI_PER_TOKEN
"""Each provider's and validator's stake: what `demo cheat` sees lost."""
FLOAT_WEI = 1_000_000 * WEI_PER_TOKEN
"""The gateway's own means for channel deposits."""
BONDS_WEI = 10_000 * WEI_PER_TOKEN
"""Each validator's means for bonds: a tenth of a provider's stake for each audit and each dispute that it is in, so a hundred at
once, and one token a challenge. All come back where it was right."""
CREDIT_WEI = 100 * WEI_PER_TOKEN
"""What the first account gets from the faucet: about 250 million tokens of answers at the default price."""


class Person(msgspec.Struct, frozen=True):
    name: str
    role: Role
    owner: Key
    hot: Key
    owner_file: Path
    hot_file: Path


class People(msgspec.Struct, frozen=True):
    treasury: Key
    gateway: Person
    validators: tuple[Person, ...]
    nodes: tuple[Person, ...]

    def everyone(self) -> tuple[Person, ...]:
        return (self.gateway, *self.validators, *self.nodes)


def make_people(folder: DataFolder, nodes: int, validators: int = 1) -> People:
    """Load all keys, or make those that aren't there yet, readable by their owner alone."""
    folder.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    return People(
        treasury=make_key(folder.keys / "treasury.key"),
        gateway=_person(folder, "gateway", Role.GATEWAY),
        validators=tuple(_person(folder, validator_name(at), Role.VALIDATOR) for at in range(validators)),
        nodes=tuple(_person(folder, node_name(at), Role.PROVIDER) for at in range(nodes)),
    )


def _person(folder: DataFolder, name: str, role: Role) -> Person:
    owner_file, hot_file = folder.keys / f"{name}.owner.key", folder.keys / f"{name}.hot.key"
    return Person(name, role, make_key(owner_file), make_key(hot_file), owner_file, hot_file)
