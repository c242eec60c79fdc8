"""What a WASM job is between two steps, as bytes: the preimage of a state digest.

A state is all of it: memory, mutable globals, the host side (files, clock, chance, log), the number of the next step and
the fuel burnt so far. So a digest commits to the meter as well, and whoever holds the preimage of h_j can do segment j
again with nothing but the module and the inputs.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox.core.module import PAGE
from clusterai.sandbox.core.spec import MiB, Reason
from clusterai.sandbox.core.wasi import Count, System

ZEROS = bytes(PAGE)
MAX_STATE_BYTES = 4096 * MiB


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    task: Annotated[Digest, Meta(min_length=32, max_length=32)]
    """Digest of the task, which names module, inputs, seed and limits."""
    step: Count
    """The next one."""
    fuel: Count
    """Burnt so far."""
    ended: Reason | None
    exit_code: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    size: Annotated[int, Meta(ge=0, le=65_536)]
    """Pages of memory."""
    pages: tuple[tuple[int, Annotated[bytes, Meta(min_length=PAGE, max_length=PAGE)]], ...]
    """Those that are not all zero."""
    globals_: tuple[int, ...]
    """Bits of each mutable global, in the module's order."""
    system: System


def pages_of(memory: memoryview) -> tuple[tuple[int, bytes], ...]:
    pages = ((at // PAGE, bytes(memory[at : at + PAGE])) for at in range(0, len(memory), PAGE))
    return tuple((index, page) for index, page in pages if page != ZEROS)


def memory_of(state: State) -> bytearray:
    """Raises: Malformed, for a page beyond the memory's size."""
    memory = bytearray(state.size * PAGE)
    for index, page in state.pages:
        if not 0 <= index < state.size:
            raise canonical.Malformed(f"page {index} of a memory of {state.size}")
        memory[index * PAGE : (index + 1) * PAGE] = page
    return memory


def decode_state(preimage: bytes) -> State:
    """Raises: canonical.Malformed."""
    return canonical.decode(preimage, State, MAX_STATE_BYTES)
