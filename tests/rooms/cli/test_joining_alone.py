"""Two machines of one owner would take the gateway's one link from each other; joining says so before anything is spent."""

import pytest

from clusterai.cli.failure import Failure
from clusterai.cli.joining import alone
from clusterai.protocol.ids import Address, checksummed
from clusterai.sdk.shapes import Node

ME, OTHER = Address(b"m" * 20), Address(b"o" * 20)


def node(owner: Address, *, linked: bool) -> Node:
    return Node(provider=checksummed(owner), stake_wei=1, barred=False, linked=linked, state="ready")


def test_another_machine_of_the_same_owner_is_told_of():
    """With the ways out; others' machines, and this owner's that is gone, are no matter."""
    with pytest.raises(Failure) as caught:
        alone(lambda: [node(ME, linked=True)], ME, lambda _: None)
    assert "another machine runs for" in caught.value.what
    assert "clusterai node join --machine 2 --owner-key FILE" in caught.value.next
    with pytest.raises(Failure) as third:
        alone(lambda: [node(ME, linked=True)], ME, lambda _: None, key="my.key", machine=2)
    assert "clusterai node join --machine 3 --owner-key my.key" in third.value.next
    alone(lambda: [node(OTHER, linked=True), node(ME, linked=False)], ME, lambda _: None)


def test_one_that_was_killed_just_now_is_waited_for():
    """Its link is there until the gateway misses it."""
    seen = [[node(ME, linked=True)], [node(ME, linked=True)], [node(ME, linked=False)]]
    alone(lambda: seen.pop(0), ME, lambda _: None)
    assert seen == []
