"""Sealed calls to a vault's service: what goes with orders and costs nothing, such as the frames of a sum.

Only the vault reads a call, and only who signed it reads the answer; so a refusal may say why.
"""

from typing import Annotated

import msgspec
from msgspec import Meta


class Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Frame(Call, frozen=True):
    """Of secure aggregation: the member's, in answer to the requester's."""

    frame: bytes


class No(Call, frozen=True):
    code: Annotated[str, Meta(max_length=40)]
    detail: Annotated[str, Meta(max_length=2_000)]
