"""Hypothesis strategies for any message: read off the same annotations that the decoder enforces."""

from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

MOST_ITEMS = 4
"""Longer tuples and blobs say nothing new about a codec."""


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values that a decoder for `kind` must take."""
    return _of(inspect.type_info(kind))


def _of(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.IntType():
            low = -(2**31) if info.ge is None else info.ge
            return st.integers(low, 2**63 - 1 if info.le is None else info.le)
        case inspect.BytesType():
            least = info.min_length or 0
            return st.binary(min_size=least, max_size=min(info.max_length or 80, max(least, 80)))
        case inspect.StrType(pattern=str(pattern)):
            most = info.max_length or 16
            return st.from_regex(pattern).filter(lambda text: len(text) <= most)
        case inspect.StrType():
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=min(info.max_length or 16, 16))
        case inspect.BoolType():
            return st.booleans()
        case inspect.VarTupleType():
            return st.lists(_of(info.item_type), min_size=info.min_length or 0, max_size=MOST_ITEMS).map(
                tuple
            )
        case inspect.TupleType():
            return st.tuples(*map(_of, info.item_types))
        case inspect.UnionType():
            return st.one_of(*map(_of, info.types))
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.StructType():
            return st.builds(info.cls, **{field.name: _of(field.type) for field in info.fields})
        case _:
            raise AssertionError(
                f"no strategy for {info}: messages hold integers, bytes, text and each other"
            )


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with a few bytes changed, cut out, doubled or put in."""
    place = st.integers(0, max(len(data) - 1, 0))
    return st.one_of(
        st.tuples(place, st.integers(0, 255)).map(
            lambda at: data[: at[0]] + bytes([at[1]]) + data[at[0] + 1 :]
        ),
        st.tuples(place, place).map(lambda cut: data[: min(cut)] + data[max(cut) :]),
        st.tuples(place, st.binary(min_size=1, max_size=9)).map(
            lambda at: data[: at[0]] + at[1] + data[at[0] :]
        ),
        place.map(lambda at: data[:at]),
        st.just(data + data),
    )
