"""An audit on one's own laptop: takes nothing on trust but the registry's keys and the model's weights.

The same checks as a validator's, in the same order (see `audit.core.recount`): what came is bound to the receipt by
digests, the receipt and the order are signed by keys of the registry, the usage is recounted, and one prefill draws each
token again.
"""

import asyncio
import base64
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from clusterai.audit.core import recount
from clusterai.audit.core.sequential import BOUND_MILLI
from clusterai.cli.failure import Failure
from clusterai.cli.local.progress import Progress
from clusterai.cli.settings import default_models
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import ChainDown, RpcRefused
from clusterai.ledger.adapters.network import Network, load_network
from clusterai.models import ModelStore, NoSuchModel
from clusterai.protocol import canonical, messages, signing
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, Role, checksummed
from clusterai.protocol.statements import Order, Receipt, network_domain, signing_digest
from clusterai.sdk import Transcript
from clusterai.work import KINDS
from clusterai.work.inference.core import tiny
from clusterai.work.kind import Findings


class Step(msgspec.Struct, frozen=True):
    name: str
    right: bool
    detail: str = ""


class Token(msgspec.Struct, frozen=True):
    """`gap`: how far from what comes out here, in logits for drawn tokens; 0 for a token that came out the same."""

    text: str
    gap: float


class Report(msgspec.Struct, frozen=True):
    id: str
    right: bool
    verdict: str
    steps: tuple[Step, ...]
    findings: dict[str, int] | None = None
    tokens: tuple[Token, ...] = ()


@contextmanager
def progress() -> Generator[Progress]:
    shown = Progress()
    try:
        yield shown
    finally:
        shown.close()


def replay(given: Transcript, manifest: Path, shown: Progress) -> Report:
    """
    Raises:
        Failure: it can't be checked here: no such model, no chain, bytes that are no transcript.
    """
    try:
        transcript = canonical.decode(base64.b64decode(given.transcript), messages.Transcript)
        receipt = canonical.decode(base64.b64decode(given.receipt), Receipt)
        signature = bytes.fromhex(given.receipt_signature[2:])
    except (ValueError, Malformed) as error:
        raise Failure("what the gateway sent is no transcript", str(error)) from None
    steps = [_bound(receipt, transcript)]
    shown.show("asking the chain who signed")
    steps += asyncio.run(_signed(load_network(manifest), receipt, signature, transcript))
    steps += _recounted(receipt, transcript)
    findings, tokens = None, ()
    if all(step.right for step in steps):
        shown.show("making every token again")
        findings, tokens = asyncio.run(_made_again(transcript, shown))
        steps.append(_judged(findings, KINDS[transcript.kind].gap_unit))
    right = all(step.right for step in steps)
    verdict = (
        "right: this receipt is what it says"
        if right
        else f"wrong: {next(s.name for s in steps if not s.right)}"
    )
    named = None if findings is None else msgspec.structs.asdict(findings)
    return Report(given.id, right, verdict, tuple(steps), named, tokens)


def _bound(receipt: Receipt, transcript: messages.Transcript) -> Step:
    why = recount.unproven_transcript(receipt, transcript)
    return Step("order, request and answer are the receipt's", why is None, why or "by their digests")


async def _signed(
    network: Network, receipt: Receipt, signature: bytes, transcript: messages.Transcript
) -> list[Step]:
    domain = network_domain(network.chain_id, network.contracts.registry)
    try:
        async with ChainClient(network) as client:
            await client.check()
            return [
                await _signer(
                    client,
                    "the provider signed the receipt",
                    domain,
                    receipt,
                    signature,
                    receipt.provider,
                    None,
                ),
                await _signer(
                    client,
                    "a gateway signed the order",
                    domain,
                    transcript.order,
                    transcript.order_signature,
                    transcript.order.gateway,
                    Role.GATEWAY,
                ),
            ]
    except (ChainDown, RpcRefused, OtherChain) as error:
        raise Failure("the chain can't be asked who signed", str(error), "clusterai status") from None


async def _signer(
    client: ChainClient,
    name: str,
    domain: Any,
    statement: Receipt | Order,
    signature: bytes,
    owner: bytes,
    role: Role | None,
) -> Step:
    try:
        key = signing.recover(signing_digest(statement, domain), signature)
    except signing.BadSignature as error:
        return Step(name, right=False, detail=str(error))
    found = await client.read("Registry", "ownerOf", key)
    if found == ZERO_ADDRESS or found != owner:
        return Step(
            name,
            right=False,
            detail=f"by a key of {checksummed(Address(found))}, not of {checksummed(Address(owner))}",
        )
    if role is not None and not (await client.read("Registry", "standing", key))[1] & role:
        return Step(
            name, right=False, detail=f"{checksummed(Address(owner))} is registered, but as no {role.name}"
        )
    return Step(name, right=True, detail=checksummed(Address(owner)))


def _recounted(receipt: Receipt, transcript: messages.Transcript) -> list[Step]:
    kind = KINDS.get(transcript.kind)
    if kind is None:
        raise Failure(
            f"work of kind {transcript.kind!r} can't be checked by this version", next="update clusterai"
        )
    try:
        request = kind.decode(transcript.request)
    except Malformed as error:
        return [Step("the request is well-formed", right=False, detail=str(error))]
    usage = kind.recount(request, transcript.answer.tokens)
    stated = (receipt.input_units, receipt.output_units)
    return [
        Step(
            "the usage is right",
            usage == stated,
            f"{usage[0]} in, {usage[1]} out; stated {stated[0]} in, {stated[1]} out",
        ),
        Step(
            "the price is within the order's cap",
            receipt.amount_wei <= transcript.order.cap_wei,
            f"{receipt.amount_wei} of {transcript.order.cap_wei}",
        ),
    ]


async def _made_again(transcript: messages.Transcript, shown: Progress) -> tuple[Findings, tuple[Token, ...]]:
    kind, answer = KINDS[transcript.kind], transcript.answer
    if kind.judge is None or kind.spell is None:
        raise Failure(f"work of kind {kind.name!r} can't be checked by this version", next="update clusterai")
    engine = await asyncio.to_thread(_engine, Digest(transcript.order.model), shown)
    try:
        request = kind.decode(transcript.request)
        findings, gaps = await kind.judge(engine, request, answer.tokens, answer.reason)
    finally:
        await engine.close()
    tokens = tuple(
        Token(text, round(float(gap), 6))
        for text, gap in zip(kind.spell(engine, answer.tokens), gaps, strict=False)
    )
    return findings, tokens


def _engine(model: Digest, shown: Progress) -> Any:
    if model == tiny.ADDRESS:
        from clusterai.work.inference.adapters.tiny import TinyEngine

        return TinyEngine(model)
    from clusterai.work.loading import load_engine

    store = ModelStore(default_models())
    try:
        return load_engine(store, store.get(model), progress=lambda doing, _: shown.show(doing))
    except NoSuchModel as error:
        raise Failure("the model isn't on this machine", str(error), "clusterai model add FILE") from None


def _judged(findings: Findings, unit: str) -> Step:
    detail = (
        f"{findings.matches} of {findings.tokens} came out the same, the worst gap is "
        f"{findings.largest_gap_milli / 1000:.3f} {unit}; weight of evidence for fraud {findings.weight_milli / 1000:+.2f} "
        f"nats, conviction needs {BOUND_MILLI / 1000:.2f}"
    )
    return Step("its tokens are what model and request give", findings.weight_milli < BOUND_MILLI, detail)
