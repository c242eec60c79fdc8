"""Orders and data sets as clients see them."""

import base64
from collections.abc import Iterable
from typing import Any

import msgspec

from clusterai.gateway.core import views
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.moneystate import Charged
from clusterai.gateway.core.posted import providers
from clusterai.gateway.core.shelf import Left, Shelved
from clusterai.market.core.routing import Routing
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.messages import Transcript
from clusterai.protocol.vaults import subject
from clusterai.sdk.vaultshapes import DataAway, DataList, Dataset, Served
from clusterai.work import KINDS


def ordered(
    meter: Meter, charged: Charged | None, transcript: Transcript | None, answer: bytes
) -> dict[str, Any]:
    """As `vaultshapes.Ordered`."""
    provider = "" if transcript is None else checksummed(Address(transcript.order.provider))
    told = None if charged is None else views.receipt(meter, charged, 0, None, own=True)
    return {
        "answer": base64.b64encode(answer).decode(),
        "receipt": told and {**told, "model_name": None},
        "charged_wei": 0 if charged is None else charged.receipt.amount_wei,
        "provider": provider,
    }


def datasets(page: list[Shelved], limit: int, routing: Routing, gone: tuple[DataAway, ...] = ()) -> DataList:
    """
    Args:
        page: one more than `limit`, where there are more.
    """
    shown = page[:limit]
    after = hex0x(shown[-1].listing.dataset) if len(page) > limit else ""
    return DataList(data=tuple(dataset(it, routing) for it in shown), next=after, away=gone)


def away(left: Iterable[Left], now_s: float) -> tuple[DataAway, ...]:
    return tuple(
        DataAway(
            dataset=hex0x(it.dataset),
            owner=checksummed(it.owner),
            name=it.name,
            ago_s=max(0, int(now_s - it.at_s)),
        )
        for it in left
    )


def dataset(it: Shelved, routing: Routing) -> Dataset:
    listing = it.listing
    return Dataset(
        dataset=hex0x(listing.dataset),
        owner=checksummed(Address(listing.owner)),
        serial=listing.serial,
        snapshot=hex0x(listing.snapshot),
        policy=hex0x(listing.policy),
        card=msgspec.Raw(it.said.card),
        listing=base64.b64encode(it.said.listing).decode(),
        signature=hex0x(it.said.signature),
        holders=tuple(map(checksummed, providers(it))),
        serves=tuple(served(Digest(listing.dataset), routing)),
    )


def served(dataset: Digest, routing: Routing) -> list[Served]:
    """What linked providers do with it, of all kinds that are done over vaults."""
    return [
        Served(
            kind=kind.name,
            subject=hex0x(about),
            provider=checksummed(provider),
            price_wei=offer.output_price_wei,
            epsilon_price_wei=offer.input_price_wei,
            slots=offer.slots,
        )
        for kind in KINDS.values()
        if kind.hosts
        for about in (subject(dataset, kind.name),)
        for provider, offer in routing.offers(about)
    ]
