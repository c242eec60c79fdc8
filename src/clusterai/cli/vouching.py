"""Whose word a listing is, asked of the chain: a gateway could have made up the key that signed it, and the one that calls are sealed to.

    listing ── recovered signer ──> Registry: of which owner is it a hot key? provides, not barred?
            ── data set ─────────> Vaults: what does the owner say of it there? not older here, not frozen there

The chain is reached by a network's manifest that came from somebody else than the gateway: this machine's own network, or a file.
"""

from pathlib import Path
from types import TracebackType

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import ChainDown, RpcRefused
from clusterai.ledger.adapters.network import BadNetwork, load_network
from clusterai.ledger.adapters.standing import standings
from clusterai.ledger.core.standing import Standing
from clusterai.protocol.ids import ZERO_ADDRESS, Address, checksummed
from clusterai.protocol.statements import network_domain
from clusterai.sdk.vaults import Listed


def manifest_of(data: Path | None, network: Path | None) -> Path | None:
    """The named manifest, else that of this machine's network, where one runs."""
    here = options.folder(data)
    return network or (here.manifest if here.is_held() else None)


def judged(listed: Listed, known: Standing) -> Failure | None:
    """Why this listing isn't its owner's word; None if it is."""
    listing, signer = listed.listing, listed.signer
    if listing.owner != known.owner and (listed.is_vault or listing.owner != signer):
        acts = "nobody" if known.owner == ZERO_ADDRESS else checksummed(known.owner)
        return _untrue(
            listed,
            "isn't signed by a key of its owner",
            f"{checksummed(signer)} acts for {acts}, and the listing says {checksummed(Address(listing.owner))}",
        )
    if not listed.is_vault:
        return None
    if known.barred or known.frozen:
        why = (
            "its owner was convicted and slashed" if known.barred else "its log broke what its owner promised"
        )
        return _untrue(listed, "is a convicted vault's", why)
    if not known.provides:
        return _untrue(
            listed, "isn't a provider's", f"{checksummed(known.owner)} is registered for other things"
        )
    here = (listing.card, listing.snapshot, listing.policy, listing.noise_commit)
    if known.serial is None or listing.serial > known.serial:
        return None
    if listing.serial == known.serial and here == known.said:
        return None
    why = f"the chain has its listing {known.serial}, this gateway shows {listing.serial}"
    return _untrue(
        listed, "isn't what its owner says now", why, "try again in a minute, or use another gateway"
    )


def _untrue(
    listed: Listed, what: str, why: str, next_: str = "use another gateway; nothing was sent"
) -> Failure:
    return Failure(f"{listed.name} {what}", why, next_, Exit.UNTRUE)


class Voucher:
    """Asks the chain about each data set that a command is about to use. Called with a listing; raises where it doesn't hold.

    Args:
        manifest: of the network, from somebody else than the gateway; None: nothing can be asked, which is said once.
    """

    def __init__(self, manifest: Path | None) -> None:
        self._manifest = manifest
        self._chain: ChainClient | None = None
        self._warned = False

    @classmethod
    def of(cls, data: Path | None, network: Path | None) -> "Voucher":
        """With the named manifest, else that of this machine's network."""
        return cls(manifest_of(data, network))

    async def __aenter__(self) -> "Voucher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._chain is not None:
            await self._chain.__aexit__()

    async def __call__(self, listed: Listed) -> None:
        """
        Raises:
            Failure: the listing isn't its owner's word, or the chain can't be asked.
        """
        if not listed.is_vault and listed.listing.owner == listed.signer:
            return  # files, signed by whom they name: there is no other to ask
        if self._manifest is None:
            if not self._warned:
                say.say("whose vault it is, the gateway alone says: --network FILE asks the chain")
            self._warned = True
            return
        try:
            known = await self._known(listed)
        except (BadNetwork, ChainDown, RpcRefused, OtherChain) as error:
            raise Failure(
                "the chain can't be asked whose data this is",
                str(error),
                "clusterai status",
                Exit.NOT_RUNNING,
            ) from None
        failure = judged(listed, known)
        if failure is not None:
            raise failure

    async def _known(self, listed: Listed) -> Standing:
        chain = await self._opened()
        network = chain.network
        if listed.network != network_domain(network.chain_id, network.contracts.registry):
            raise OtherChain("the gateway is of another network than the manifest")
        [known] = await standings(chain, [(listed.signer, listed.dataset)])
        return known

    async def _opened(self) -> ChainClient:
        if self._chain is None:
            assert self._manifest is not None, "asked only where there is one"
            chain = await ChainClient(load_network(self._manifest)).__aenter__()
            self._chain = chain
            await chain.check()
        return self._chain
