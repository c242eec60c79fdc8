"""Vaults as a requester reaches them through a gateway that it needn't trust: their cards, its grants there, its orders.

The gateway carries cards whose digest stands in a signed listing, calls that it can't read, and orders whose answers it can't open; what it could do
is leave something out.
"""

import base64
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import access, canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import BadId, Digest, hex0x
from clusterai.protocol.ids import digest as read_digest
from clusterai.protocol.signing import BadSignature, recover
from clusterai.protocol.vaults import Listing, subject
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaultshapes import DataList, Dataset, Ordered, OrderRequest, Served
from clusterai.vault.core.card import BadCard, VaultFacts, read_facts

if TYPE_CHECKING:
    from clusterai.sdk import Client

ANSWER_S = 1_300.0
"""Longer than a gateway waits for a program over blocks."""


class Reach(Protocol):
    """How a gateway is spoken to: `OverHttp` is one, tests have another without a network."""

    def find(self, text: str) -> list[Dataset]: ...
    def dataset(self, dataset: str) -> Dataset: ...
    def call(self, about: Digest, body: bytes) -> bytes: ...
    def order(self, about: Digest, request: OrderRequest, key: str) -> Ordered: ...


class OverHttp:
    """Through a gateway's own endpoints."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def find(self, text: str) -> list[Dataset]:
        return list(self._client.told("GET", "/v1/clusterai/data", DataList, params={"text": text}).data)

    def dataset(self, dataset: str) -> Dataset:
        return self._client.told("GET", f"/v1/clusterai/data/{quote(dataset, safe='')}", Dataset)

    def call(self, about: Digest, body: bytes) -> bytes:
        return self._client.ask(
            "POST", f"/v1/clusterai/calls/{hex0x(about)}", content=body, timeout=60.0
        ).content

    def order(self, about: Digest, request: OrderRequest, key: str) -> Ordered:
        answer = self._client.ask(
            "POST",
            f"/v1/clusterai/orders/{hex0x(about)}",
            content=msgspec.json.encode(request),
            headers={"Content-Type": "application/json", "Idempotency-Key": key},
            timeout=ANSWER_S,
        )
        return msgspec.json.decode(answer.content, type=Ordered)


class Found(msgspec.Struct, frozen=True):
    """A vault.

    Attributes:
        hot: who signed its listing, and signs its uses.
        serves: who answers queries on it at which prices; None where nobody does now.
    """

    name: str
    dataset: Digest
    snapshot: Digest
    seal_to: bytes
    hot: bytes
    facts: VaultFacts
    serves: Served | None


def found(reach: Reach, wanted: str, network: Domain) -> Found:
    """The vault of that name or id.

    Raises:
        Failure: there is none, there are several, or its card isn't what its owner signed.
    """
    try:
        told = reach.dataset(hex0x(read_digest(wanted)))
    except BadId:
        named = [it for it in reach.find(wanted) if wanted in (it.card.get("name"), it.dataset)]
        if len(named) != 1:
            raise Failure(
                f"{len(named) or 'no'} vaults are called {wanted}",
                next="clusterai data search" if not named else f"--vault {named[0].dataset}",
                code=Exit.NOT_FOUND,
            ) from None
        told = named[0]
    card = msgspec.json.encode(told.card, order="sorted")
    try:
        raw = base64.b64decode(told.listing, validate=True)
        listing = canonical.decode(raw, Listing)
        signature = bytes.fromhex(told.signature.removeprefix("0x"))
        hot = recover(listing.signing_digest(network), signature)
        facts = read_facts(card)
    except (ValueError, Malformed, BadSignature, BadCard) as error:
        raise Failure(
            f"what the gateway tells of {wanted} can't be read", str(error), code=Exit.UNTRUE
        ) from None
    if listing.card != canonical.content_digest(card) or hex0x(listing.dataset) != told.dataset:
        raise Failure(
            f"the card of {wanted} isn't the one that its vault signed",
            next="ask another gateway",
            code=Exit.UNTRUE,
        )
    dataset = Digest(listing.dataset)
    about = hex0x(subject(dataset, "query"))
    return Found(
        str(told.card.get("name", wanted)),
        dataset,
        Digest(listing.snapshot),
        bytes.fromhex(facts.seal_to.removeprefix("0x")),
        hot,
        facts,
        next((it for it in told.serves if it.subject == about), None),
    )


def standing(reach: Reach, vault: Found, who: Identity, network: Domain) -> tuple[access.Status, ...]:
    """This requester's requests there, and what became of them.

    Raises:
        Failure: the vault refuses.
    """
    question = who.sealed(
        vault.dataset, vault.seal_to, network, canonical.encode(access.AskStanding()), time.time()
    )
    reply = reach.call(subject(vault.dataset, "vault"), question.body)
    try:
        told = access.decode_told(who.opened(vault.seal_to, reply, question.nonce))
    except (NotFromVault, Malformed) as error:
        raise Failure(f"{vault.name} didn't answer this", str(error), code=Exit.UNTRUE) from None
    match told:
        case access.Standing(requests):
            return requests
        case access.NotGiven(code, detail):
            raise Failure(f"{vault.name} refuses", f"{code}: {detail}")
        case _:
            raise Failure(f"{vault.name} answered something else", code=Exit.UNTRUE)
