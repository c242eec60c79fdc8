"""The vault as this kind of work needs it: `vault.adapters.hosting.Vault` is one, tests have a smaller one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import SignedUse
from clusterai.vault.core.schema import Schema


class Permitted(Protocol):
    """See `vault.core.terms.Permit`."""

    @property
    def requester(self) -> Address: ...
    @property
    def seal_to(self) -> bytes: ...


class Hosted(Protocol):
    """See `vault.adapters.hosting.Vault`. What is refused raises `vault.core.terms.Denied`."""

    @property
    def dataset(self) -> Digest: ...
    @property
    def snapshot(self) -> Digest: ...
    @property
    def schema(self) -> Schema: ...
    @property
    def network(self) -> Domain: ...
    def permit(self, grant: Digest, signer: Address, operation: int, code: Digest) -> Permitted: ...
    def code(self, grant: Digest) -> bytes:
        """The program that the grant is for, as the owner read it; empty where there is none."""
        ...

    def spend(self, grant: Digest, order: Digest, epsilon_micro: int, delta_pico: int) -> object: ...
    def used(self, order: Digest, result: Digest) -> SignedUse: ...
    def columns(self, names: Sequence[str]) -> Mapping[str, NDArray[Any]]: ...
    def noise_seed(self, order: Digest, beacon: bytes) -> bytes: ...
    def hold(self, grant: Digest, order: Digest, output: bytes) -> object:
        """Keep what a program left until the vault's owner has read it."""
        ...

    def sealed(self, to: bytes, data: bytes) -> bytes: ...
