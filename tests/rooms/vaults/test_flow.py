"""What calls may hold and move."""

import pytest

from clusterai.gateway.core.flow import Flow, FlowLimits, Full
from clusterai.protocol.ids import Digest

ANN, BOB = Digest(b"a" * 32), Digest(b"b" * 32)


def test_one_account_cant_hold_what_others_need():
    """Its calls and bytes are bounded, and the gateway's own bound holds for all together."""
    flow = Flow(FlowLimits(most_bytes=100, account_bytes=60, account_calls=2, bytes_a_minute=10**6))
    first, second = flow.begin(ANN, 0.0), flow.begin(ANN, 0.0)
    with pytest.raises(Full, match="2 calls"):
        flow.begin(ANN, 0.0)
    first.take(60)
    with pytest.raises(Full, match="60 bytes"):
        second.take(1)
    bob = flow.begin(BOB, 0.0)
    bob.take(40)
    with pytest.raises(Full, match="can hold"):
        bob.take(1)
    first.end()
    first.end()
    second.take(60)
    assert flow.held_bytes == 100
    with pytest.raises(Full, match="over"):
        first.take(1)


def test_what_is_moved_in_a_minute_is_bounded():
    """One call may go beyond it; the next waits until the time has made up for it."""
    flow = Flow(FlowLimits(most_bytes=10**6, account_bytes=10**6, account_calls=2, bytes_a_minute=600))
    call = flow.begin(ANN, 0.0)
    call.take(1200)
    call.end()
    with pytest.raises(Full, match="in a minute") as refused:
        flow.begin(ANN, 1.0)
    assert 59 < refused.value.wait_s <= 61
    flow.begin(ANN, 61.0).end()
    flow.begin(BOB, 1.0).end()
