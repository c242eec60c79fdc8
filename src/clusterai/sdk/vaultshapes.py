"""What a gateway is asked and tells about vaults, as structs. The server side answers exactly these shapes. Nothing but data.

Amounts are in the token's smallest unit; ids and addresses are 0x hex; bytes are base64.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.sdk.shapes import Receipt

Base64 = Annotated[str, Meta(max_length=1_100_000, pattern=r"\A[A-Za-z0-9+/]*={0,2}\Z")]


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One order of a kind of work.

    Attributes:
        request: the kind's canonical bytes.
        max_price_wei: the most that it may cost; None: whatever providers ask.
        provider: who shall do it; None: whoever offers the subject.
    """

    kind: Annotated[str, Meta(max_length=32)]
    request: Base64
    max_price_wei: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    provider: Annotated[str, Meta(max_length=42)] | None = None


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        answer: the bytes that the kind packed into its answer.
        receipt: None where the provider never sent one: then it was free.
    """

    answer: str
    receipt: Receipt | None
    charged_wei: int
    provider: str


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's offer to do one kind of work on a data set.

    Attributes:
        price_wei: of one use ...
        epsilon_price_wei: ... plus this for each thousandth of ε.
    """

    kind: str
    subject: str
    provider: str
    price_wei: int
    epsilon_price_wei: int
    slots: int


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A data set as its owner lists it. What the card says is the owner's word; whose word it is, was checked.

    Attributes:
        card: the data card, a JSON object, to the byte as its owner signed it.
        listing: the signed statement in canonical bytes, and its signature: both can be checked by whoever reads them.
        holders: linked providers that have it.
        serves: what they do with it, at which prices.
    """

    dataset: str
    owner: str
    serial: int
    snapshot: str
    policy: str
    card: msgspec.Raw
    listing: str
    signature: str
    holders: tuple[str, ...]
    serves: tuple[Served, ...] = ()


class DataAway(msgspec.Struct, frozen=True, kw_only=True):
    """A data set whose every holder lost its link; `ago_s`: the last one's, when this was told. The gateway's word."""

    dataset: str
    owner: str
    name: str
    ago_s: int


class DataList(msgspec.Struct, frozen=True, kw_only=True):
    """`next`: what `page` has to be for the next ones; empty where there are no more. `away`, on the first page: what was listed and isn't linked at the moment."""

    data: tuple[Dataset, ...]
    next: str = ""
    away: tuple[DataAway, ...] = ()


class DataPosted(msgspec.Struct, frozen=True, kw_only=True):
    """A listing that was brought by HTTP is kept until then; bring it again before."""

    dataset: str
    until_s: int
