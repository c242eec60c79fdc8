"""Folders as values."""

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from clusterai.protocol import canonical
from clusterai.work.batch.core.tree import (
    EMPTY,
    MOST_ENTRIES,
    BadPath,
    Entry,
    Tree,
    checked_path,
    decode_tree,
    listing,
    missing,
    outputs,
    overlay,
)
from clusterai.work.request import OutOfRange


def file(path: str, content: str = "", *, program: bool = False) -> Entry:
    raw = content.encode()
    return Entry(path, "program" if program else "file", blake3(raw).digest(), len(raw))


def tree(**content: str) -> Tree:
    return listing(file(path.replace("__", "/"), text) for path, text in content.items())


@pytest.mark.parametrize(
    "path",
    ["", "/a", "..", "a/../b", "a//b", ".git", "a/.b", "a\\b", "a\nb", "ä", "x" * 129, "/".join("a" * 9)],
)
def test_a_path_can_not_leave_or_hide(path: str):
    """Absolute, `..`, hidden, odd characters, too long and too deep are refused."""
    with pytest.raises(BadPath):
        checked_path(path)


def test_a_listing_is_tidy():
    """Out of order, twice, inside a file, and too many entries are refused on decoding."""
    a, b = file("a"), file("b")
    for wrong in ((b, a), (a, a), (a, file("a/b"))):
        with pytest.raises(BadPath):
            Tree(wrong)
    with pytest.raises(OutOfRange):
        listing(file(f"f{i}") for i in range(MOST_ENTRIES + 1))
    raw = Tree((a, b)).canonical()
    assert decode_tree(raw) == Tree((a, b))
    with pytest.raises(canonical.Malformed):
        decode_tree(raw[:-1])


def test_all_that_counts_changes_the_digest():
    """Path, content, and whether it is a program; the order in which files are found doesn't."""
    one = listing([file("a", "1"), file("b", "2")])
    assert one.digest() == listing([file("b", "2"), file("a", "1")]).digest()
    others = [
        listing([file("a", "1"), file("c", "2")]),
        listing([file("a", "1"), file("b", "3")]),
        listing([file("a", "1"), file("b", "2", program=True)]),
        listing([file("a", "1")]),
        EMPTY,
    ]
    assert len({it.digest() for it in [one, *others]}) == len(others) + 1


def test_later_folders_win():
    """A file replaces a file, a folder gives way to a file and a file to a folder."""
    assert overlay([tree(a="1", b="1"), tree(a="2")]) == tree(a="2", b="1")
    assert overlay([tree(a__b="1", a__c="1", d="1"), tree(a="2")]) == tree(a="2", d="1")
    assert overlay([tree(a="1"), tree(a__b="2", a__c="3")]) == tree(a__b="2", a__c="3")
    assert overlay([]) == EMPTY


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


@given(st.lists(st.lists(PATHS, max_size=5), max_size=4))
def test_laying_over_each_other_gives_a_folder(layers: list[list[str]]):
    """Whatever lies over whatever, the result is tidy, and all of the last layer is in it."""
    trees = [overlay([listing([file(path, str(at))]) for path in layer]) for at, layer in enumerate(layers)]
    whole = overlay(trees)
    assert decode_tree(whole.canonical()) == whole
    if trees:
        assert set(trees[-1].entries) <= set(whole.entries)
    assert overlay([whole, EMPTY]) == overlay([EMPTY, whole]) == whole


def test_outputs_are_what_was_asked_for():
    """Named files and folders, or else what is new or changed."""
    start, end = tree(a="1", b="1"), tree(a="1", b="2", out__x="3", outer="4")
    assert outputs(start, end, ("out",)) == tree(out__x="3")
    assert outputs(start, end, ()) == tree(b="2", out__x="3", outer="4")
    assert missing(end, ("a", "gone", "out")) == ["gone"]
    assert end.size == 4
    assert len(tree(a="1", b="1").contents()) == 1
