"""What a relay of drand answers: none is believed, and none may end a validator."""

import msgspec

from clusterai.audit.adapters.drand import read_pulse
from clusterai.audit.core.drand import SIGNATURE_BYTES, FalsePulse

PULSE = {"round": 7, "randomness": "00" * 32, "signature": "ab" * SIGNATURE_BYTES}


def once(data: bytes) -> bool:
    """A pulse of a round with a signature of its length, or `FalsePulse`."""
    try:
        pulse = read_pulse(data)
    except FalsePulse:
        return False
    assert pulse.round >= 1
    assert len(pulse.signature) == SIGNATURE_BYTES
    return True


def seeds() -> list[bytes]:
    return [msgspec.json.encode(PULSE)]
