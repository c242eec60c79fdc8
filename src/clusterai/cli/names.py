"""Whose vault a name means: the owner under whom this identity met it first, as ssh knows its hosts.

Anyone may list a data set under any name, so a name alone says nothing of whose it is. What it meant once it goes on meaning, on the same
network; a stranger who lists the same name is told of and never taken, and a name whose owner is gone while a stranger has it is refused.

    identity.json       the requester's key
    identity.known      one line of JSON for each name: network, name, owner
"""

import time
from pathlib import Path

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import ids
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, hex0x


class Known(msgspec.Struct, frozen=True):
    """A line of it."""

    network: str
    name: str
    owner: str
    at_s: int


class Names:
    """The names that one identity knows.

    Args:
        genesis: of the network, where its manifest is known from elsewhere than the gateway: networks that are begun anew on one machine
            have the same contracts' addresses. Else what is signed under tells networks apart.
    """

    def __init__(self, path: Path, genesis: str = "") -> None:
        self._path, self._genesis = path, genesis

    def all(self) -> list[Known]:
        """
        Raises:
            Failure: the file is damaged. A line that can't be read would be a name that anyone may have.
        """
        try:
            lines = self._path.read_bytes().splitlines()
            found = [msgspec.json.decode(line, type=Known) for line in lines if line.strip()]
            for it in found:
                ids.address(it.owner)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise Failure(
                f"{self._path} can't be read", str(error), "mend it, or remove it and look twice", Exit.FAILED
            ) from None
        return found

    def owner(self, network: Domain, name: str) -> Address | None:
        """Who was met under it first."""
        at = self._at(network)
        return next((ids.address(it.owner) for it in self.all() if (it.network, it.name) == (at, name)), None)

    def learn(self, network: Domain, name: str, owner: Address) -> None:
        known = Known(self._at(network), name, hex0x(owner), int(time.time()))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(known) + b"\n")

    def forget(self, name: str) -> list[Known]:
        """On all networks; what was known."""
        known = self.all()
        kept = [it for it in known if it.name != name]
        if len(kept) < len(known):
            new = self._path.with_name(self._path.name + ".new")
            new.write_bytes(b"".join(msgspec.json.encode(it) + b"\n" for it in kept))
            new.replace(self._path)
        return [it for it in known if it.name == name]

    def _at(self, network: Domain) -> str:
        return self._genesis or f"{network.chain_id}:{hex0x(network.contract)}"


def known_at(identity: Path | None) -> Path:
    """Where it lies, beside this identity's file."""
    from clusterai.cli.identity import usual_identity

    return (identity or usual_identity()).expanduser().with_suffix(".known")


def names_at(identity: Path | None, data: Path | None, network: Path | None) -> Names:
    """Those of an identity, on one network.

    Args:
        data, network: as a command's options; from them it follows by which manifest networks are told apart.

    Raises:
        Failure: the manifest can't be used.
    """
    from clusterai.cli.vouching import manifest_of
    from clusterai.ledger.adapters.network import BadNetwork, load_network

    path, manifest = known_at(identity), manifest_of(data, network)
    try:
        return Names(path, "" if manifest is None else hex0x(load_network(manifest).genesis))
    except BadNetwork as error:
        raise Failure(f"{manifest} is no network's manifest", str(error), code=Exit.USAGE) from None
