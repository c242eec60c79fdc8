"""What cheats at modules, for the network's demonstration and for the tests that must catch it.

It does the work, and claims other states and another result: each state it commits to is the right one but for the last byte of
memory, so every segment is wrong, and each begins with something that can be run and served. Accused, it defends its lie for as
long as it can: it runs the segment again as an honest one would, so all it asserts is true, and it parts from the truth in the
last step, where what it claimed stands. What is found is that a state is wrong, whatever making it up has cost; a cheat that saves
the work is found the same way.
"""

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox import Leash, Log
from clusterai.sandbox.core.module import PAGE
from clusterai.sandbox.core.state import MAX_STATE_BYTES, ZEROS, State, decode_state
from clusterai.work.batch.adapters.logbook import Logbook
from clusterai.work.batch.adapters.perform import OnSegment, Performer
from clusterai.work.batch.core.outcome import Performed
from clusterai.work.batch.spec import JobSpec


class Liar(Performer):
    """Performs as the base class does, and lies about modules."""

    async def perform(
        self,
        spec: JobSpec,
        *,
        self_checks: int = 1,
        leash: Leash | None = None,
        on_log: Log | None = None,
        on_segment: OnSegment | None = None,
        logbook: Logbook | None = None,
    ) -> Performed:
        done = await super().perform(
            spec,
            self_checks=self_checks,
            leash=leash,
            on_log=on_log,
            on_segment=on_segment,
            logbook=logbook,
        )
        if spec.check != "wasm" or not done.is_payable or not done.units:
            return done
        states = (done.states[0], *(self._false(state, i) for i, state in enumerate(done.states[1:], 1)))
        output = self.ends.outputs(spec, Digest(states[-1]))
        return msgspec.structs.replace(done, states=states, output=output)

    def _false(self, state: Digest, at: int) -> Digest:
        """What it claims in place of the state after segment `at`."""
        false = _marked(decode_state(self.store.read(state, MAX_STATE_BYTES)), at)
        if false.ended is not None:
            files = {path: _another(content) for path, content in false.system.files.items()}
            false = msgspec.structs.replace(false, system=msgspec.structs.replace(false.system, files=files))
        return self.store.put(canonical.encode(false))


def _marked(state: State, mark: int) -> State:
    """With another last byte of memory."""
    end = state.size - 1
    pages = dict(state.pages)
    changed = pages.get(end, ZEROS)[: PAGE - 1] + bytes((mark % 255 + 1,))
    return msgspec.structs.replace(state, pages=tuple(sorted({**pages, end: changed}.items())))


def _another(content: bytes) -> bytes:
    """A plausible other result: the first digit is one more."""
    at = next((i for i, byte in enumerate(content) if byte in b"0123456789"), None)
    if at is None:
        return content + b"\n"
    return content[:at] + str((content[at] - 48 + 1) % 10).encode() + content[at + 1 :]
