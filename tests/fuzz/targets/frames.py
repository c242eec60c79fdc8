"""What a peer sends on a link: frames, relayed bodies and greetings."""

from typing import cast

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.messages import Frame, Relayed
from clusterai.runtime.core.greeting import hear
from tests.fuzz.vectors import values_of


def once(data: bytes) -> bool:
    """A frame is spelled in one way, and everything else is `Malformed`."""
    taken = False
    for kind in (cast("type[Frame]", Frame), cast("type[Relayed]", Relayed)):
        try:
            value = canonical.decode(data, kind)
        except Malformed:
            continue
        taken = True
        assert canonical.encode(value) == data
        assert canonical.decode(canonical.encode(value), kind) == value
    try:
        hear(data)
    except Malformed:
        return taken
    return True


def seeds() -> list[bytes]:
    return values_of("frames.json", "frames")
