"""Each field of each frame about jobs has an end, at which it is taken and beyond which the frame is nonsense.

The fields are read off the frames themselves, so a new one is tested when it is there, and one without an end is a fault.
"""

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from clusterai.protocol import calls, canonical, jobs, measuring, offering
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.leases import Terms

KINDS: list[Any] = [
    *get_args(jobs.JobFrame),
    *get_args(jobs.JobRelayed),
    *get_args(offering.OfferingFrame),
    *get_args(calls.CallFrame),
    *get_args(measuring.MeasureRelayed),
    *get_args(measuring.Test),
    *get_args(measuring.Result),
    measuring.Finding,
    measuring.Findings,
    jobs.Segment,
    jobs.Bait,
    calls.DataListing,
]
MOST_INT = 2**64 - 1
"""More can't be encoded."""


def fields(kind: Any) -> tuple[inspect.Field, ...]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return found.fields


def least(it: inspect.Type) -> Any:
    """A value that is taken, as small as there is."""
    match it:
        case inspect.IntType(ge=ge):
            return ge or 0
        case inspect.BytesType(min_length=length):
            return bytes(length or 0)
        case inspect.StrType(min_length=length):
            return "x" * (length or 0)
        case inspect.BoolType():
            return False
        case inspect.VarTupleType(item_type=item, min_length=length):
            return (least(item),) * (length or 0)
        case inspect.TupleType(item_types=items):
            return tuple(map(least, items))
        case inspect.StructType(cls=cls):
            return sample(cls)
        case inspect.UnionType(types=types):
            return least(types[0])
        case inspect.CustomType() | inspect.EnumType():
            return 1
        case inspect.UnionType(types=types):
            return least(types[0])
        case _:
            raise AssertionError(f"no rule for {it}")


def sample(kind: Any) -> Any:
    return kind(*(least(field.type) for field in fields(kind)))


def ends(it: inspect.Type) -> Iterator[tuple[Any, Any]]:
    """Values at an end, each with one beyond it."""
    match it:
        case inspect.IntType(ge=low, le=high):
            assert low is not None, "a number with no least"
            assert high is not None, "a number with no most"
            yield low, low - 1
            if high < MOST_INT:
                yield high, high + 1
        case inspect.BytesType(min_length=low, max_length=high):
            assert high is not None, "bytes without an end"
            yield bytes(high), bytes(high + 1)
            if low:
                yield bytes(low), bytes(low - 1)
        case inspect.StrType(max_length=high):
            assert high is not None, "a text without an end"
            yield "x" * high, "x" * (high + 1)
        case inspect.VarTupleType(item_type=item, max_length=high):
            assert high is not None, "a list without an end"
            one = least(item)
            yield (one,) * high, (one,) * (high + 1)
            for right, wrong in ends(item):
                yield (right,), (wrong,)
        case inspect.TupleType(item_types=items):
            whole = [least(one) for one in items]
            for place, one in enumerate(items):
                for right, wrong in ends(one):
                    before, after = whole[:place], whole[place + 1 :]
                    yield (*before, right, *after), (*before, wrong, *after)
        case inspect.UnionType(types=types):
            for one in types:
                yield from ends(one)
        case inspect.BoolType() | inspect.StructType() | inspect.NoneType():
            return
        case _:
            raise AssertionError(f"no rule for {it}")


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        pytest.param(kind, field, id=f"{kind.__name__}-{field.name}")
        for kind in KINDS
        for field in fields(kind)
    ],
)
def test_a_field_has_ends(kind: Any, field: inspect.Field):
    """At each the frame comes back from its bytes as it was; one beyond, they are refused."""
    whole = sample(kind)
    for right, wrong in ends(field.type):
        taken = msgspec.structs.replace(whole, **{field.name: right})
        assert canonical.decode(canonical.encode(taken), kind, 2**24) == taken
        raw = canonical.encode(msgspec.structs.replace(whole, **{field.name: wrong}))
        with pytest.raises(Malformed):
            canonical.decode(raw, kind, 2**24)


def test_terms_have_ends():
    """What a lease says is bounded too: no number below zero, none that the chain's types don't hold."""
    whole = sample(Terms)
    for field in fields(Terms):
        if isinstance(field.type, inspect.IntType | inspect.BytesType):
            for right, wrong in ends(field.type):
                taken = msgspec.structs.replace(whole, **{field.name: right})
                assert canonical.decode(canonical.encode(taken), Terms) == taken
                with pytest.raises(Malformed):
                    canonical.decode(
                        canonical.encode(msgspec.structs.replace(whole, **{field.name: wrong})), Terms
                    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_frame_is_refused_with_a_field_too_many_or_too_few(kind: Any):
    """What isn't there isn't made up, and what nobody knows isn't passed over."""
    raw = canonical.encode(sample(kind))
    if kind.__struct_config__.array_like:
        listed = msgspec.msgpack.decode(raw, type=list[Any])
        bent: list[Any] = [[*listed, 1], listed[:-1]]
    else:
        named = msgspec.msgpack.decode(raw, type=dict[str, Any])
        bent = [{**named, "more": 1}, dict([*named.items()][:-1])]
    for one in bent:
        with pytest.raises(Malformed):
            canonical.decode(msgspec.msgpack.encode(one), kind)
