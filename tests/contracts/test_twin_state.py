"""The twin as a simulator's chain: it goes back, it forks, and every struct has its place in the ABI."""

import typing

from clusterai.ledger.artifacts import load
from clusterai.ledger.core import calls, events
from clusterai.ledger.core.abi import Codec
from clusterai.ledger.core.twin import Refused
from clusterai.protocol.ids import ZERO_DIGEST
from tests.contracts.cast import AT, DEPLOYER, OWNERS, PAYER, STRANGER, Pair


def test_refused_call_leaves_no_trace() -> None:
    """A call that reverts half way changes nothing: the stake is not counted when the transfer fails."""
    pair = Pair()
    pair.expect(calls.Register(1, ZERO_DIGEST), OWNERS["ann"])
    before = pair.twin.state()
    assert pair.refused(calls.Bond(5), OWNERS["ann"]) == "ERC20InsufficientAllowance"
    assert pair.twin.state() == before


def test_rollback_undoes_blocks_and_replay_gives_the_same_state() -> None:
    """A reorganisation is a rollback; the same calls again lead to the same state."""
    pair = Pair()
    pair.populate()
    mark, before = pair.twin.mark(), pair.twin.state()
    script = [(calls.Transfer(STRANGER.address, 5), PAYER), (calls.Tick(), DEPLOYER), (calls.Burn(7), PAYER)]
    block = pair.block()
    for call, sender in script:
        assert not isinstance(pair.twin.execute(call, sender.address, block), Refused)
    after = pair.twin.state()
    pair.twin.rollback(mark)
    assert pair.twin.state() == before
    for call, sender in script:
        pair.twin.execute(call, sender.address, block)
    assert pair.twin.state() == after


def test_copies_live_their_own_lives() -> None:
    """A fork of the chain doesn't see what happens on the other."""
    pair = Pair()
    pair.populate()
    fork = pair.twin.copy()
    assert fork.state() == pair.twin.state()
    fork.execute(calls.Transfer(STRANGER.address, 5), PAYER.address, pair.block())
    assert fork.token.balance(STRANGER.address) == pair.twin.token.balance(STRANGER.address) + 5


def test_every_call_and_event_has_its_place_in_the_abi() -> None:
    """No struct without a function or an event, and no field that the ABI lacks."""
    codec = Codec(AT)
    told = {kind for kind in typing.get_args(events.Event) if kind not in (events.Block, events.RolledBack)}
    names = {
        {"Transfer": "Transferred"}.get(entry["name"], entry["name"])
        for contract in (
            "Token",
            "Registry",
            "Channels",
            "Court",
            "Credit",
            "Panel",
            "Delegations",
            "Leases",
            "Audits",
            "Deliveries",
            "Disputes",
            "Vaults",
            "Rewards",
            "ChainBeacon",
            "DrandBeacon",
        )
        for entry in load(contract).abi
        if entry["type"] == "event"
    }
    assert {kind.__name__ for kind in told} <= names
    assert len(codec.topics()) == len(told)
    assert set(typing.get_args(calls.Call)) == set(calls.CONTRACT)
