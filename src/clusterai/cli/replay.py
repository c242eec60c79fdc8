"""Brings to a replay what it needs: the case (from a gateway, or a validator's verdict file), the registry's word on
who signed, and an engine with the true weights. The checks themselves are `validator.replay`'s.
"""

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.progress import Progress
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import ChainDown, RpcRefused
from clusterai.ledger.adapters.network import BadNetwork, Network, load_network
from clusterai.models import Altered, ModelStore, NoSuchModel
from clusterai.models.adapters.openvino_convert import NotConverted
from clusterai.protocol import canonical, messages
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import BadSignature, recover
from clusterai.protocol.statements import Order, Receipt, network_domain, signing_digest
from clusterai.runtime.adapters.config import default_models
from clusterai.sdk import Transcript
from clusterai.validator.replay import BadFile, Report, bundle_of, replay, replay_bundle
from clusterai.work import KINDS


class Replayed(msgspec.Struct, frozen=True):
    """A report, and the answer's tokens as people read them."""

    report: Report
    texts: tuple[str, ...]


def replay_transcript(given: Transcript, manifest: Path, shown: Progress) -> Replayed:
    """Check a receipt with what its gateway keeps for the account that paid.

    Raises:
        Failure: it can't be checked here: no such model, no chain, bytes that are no transcript.
    """
    try:
        transcript = canonical.decode(base64.b64decode(given.transcript), messages.Transcript)
        receipt = canonical.decode(base64.b64decode(given.receipt), Receipt)
        signature = bytes.fromhex(given.receipt_signature[2:])
    except (ValueError, Malformed) as error:
        raise Failure("what the gateway sent is no transcript", str(error)) from None

    async def check() -> Replayed:
        network = _network(manifest)
        domain = network_domain(network.chain_id, network.contracts.registry)
        signed: list[tuple[Order | Receipt, bytes]] = [
            (transcript.order, transcript.order_signature),
            (receipt, signature),
        ]
        owners = await _owners(network, signed, shown)
        async with _Engine(transcript, shown) as (engine, texts):
            return Replayed(await replay(transcript, receipt, engine, signature, domain, owners.get), texts)

    return asyncio.run(check())


def replay_file(path: Path, manifest: Path, shown: Progress) -> Replayed:
    """Check the case in a validator's verdict file, its place in the commitment included.

    Raises:
        Failure: it is no such file, or it can't be checked here.
    """
    try:
        bundle = bundle_of(path)
    except BadFile as error:
        raise Failure(str(error), code=Exit.USAGE) from None

    async def check() -> Replayed:
        network = _network(manifest)
        domain = network_domain(network.chain_id, network.contracts.registry)
        transcript = bundle.transcript
        signed: list[tuple[Order | Receipt, bytes]] = [
            (transcript.order, transcript.order_signature),
            (bundle.receipt, bundle.signature),
        ]
        owners = await _owners(network, signed, shown)
        async with _Engine(transcript, shown) as (engine, texts):
            return Replayed(await replay_bundle(bundle, engine, domain, owners.get), texts)

    return asyncio.run(check())


def _network(manifest: Path) -> Network:
    try:
        return load_network(manifest)
    except BadNetwork as error:
        raise Failure(
            "which network signed it isn't known",
            str(error),
            "clusterai network network.json --network-digest 0x…, and --network network.json here",
            Exit.NOT_RUNNING,
        ) from None


async def _owners(
    network: Network, signed: list[tuple[Order | Receipt, bytes]], shown: Progress
) -> dict[Address, Address]:
    """The registry's owners of the keys that signed; keys that it doesn't know are left out."""
    shown.show("asking the chain who signed")
    domain = network_domain(network.chain_id, network.contracts.registry)
    keys: list[Address] = []
    for statement, signature in signed:
        try:
            keys.append(recover(signing_digest(statement, domain), signature))
        except BadSignature:
            continue  # the replay says so
    try:
        async with ChainClient(network) as client:
            await client.check()
            found = await client.read_many([("Registry", "ownerOf", (key,)) for key in keys])
    except (ChainDown, RpcRefused, OtherChain) as error:
        raise Failure(
            "the chain can't be asked who signed", str(error), "clusterai status", Exit.NOT_RUNNING
        ) from None
    return {key: owner for key, owner in zip(keys, found, strict=True) if owner != ZERO_ADDRESS}


class _Engine:
    """An engine of the transcript's model while it is entered, and the words of the answer."""

    def __init__(self, transcript: messages.Transcript, shown: Progress) -> None:
        self._transcript = transcript
        self._shown = shown
        self._engine: Any = None

    async def __aenter__(self) -> tuple[Any, tuple[str, ...]]:
        kind = KINDS.get(self._transcript.kind)
        if kind is None or kind.spell is None:
            raise Failure(
                f"work of kind {self._transcript.kind!r} can't be checked by this version",
                next="update clusterai",
            )
        if not kind.serves:
            self._shown.show("doing all of it again")
            return None, tuple(kind.spell(None, self._transcript.answer.tokens))
        model = Digest(self._transcript.order.model)
        self._engine = await asyncio.to_thread(_load, model, self._shown)
        self._shown.show("making every token again")
        return self._engine, tuple(kind.spell(self._engine, self._transcript.answer.tokens))

    async def __aexit__(self, *_: object) -> None:
        if self._engine is not None:
            await self._engine.close()


def _load(model: Digest, shown: Progress) -> Any:
    from clusterai.work.loading import find, load_engine

    store = ModelStore(default_models())
    try:
        return load_engine(store, find(store, model), progress=lambda doing, _: shown.show(doing))
    except NoSuchModel as error:
        raise Failure("the model isn't on this machine", str(error), "clusterai model add FILE") from None
    except (Altered, NotConverted) as error:
        raise Failure("the model can't be loaded", str(error)) from None
