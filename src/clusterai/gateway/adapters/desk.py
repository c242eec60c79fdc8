"""Between HTTP and the Meter: each wanted answer is a choice, each choice an errand, and its tokens become text here.

All choices of a request are one call, charged as a whole: see `core/bills.py`.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clusterai.gateway.adapters.catalog import Served
from clusterai.gateway.core.errands import Abandon, Ask, Deliver, Done, Failed, Restarted, Settled
from clusterai.gateway.core.faults import Fault, of_failure
from clusterai.gateway.core.shapes import Logprob
from clusterai.market.core.routing import Preference
from clusterai.models.core.text import TextStream
from clusterai.protocol.ids import Digest
from clusterai.work import Kind, embedding, inference
from clusterai.work.embedding import Embedding
from clusterai.work.inference import Generation

ANSWER_S = 600.0
"""An answer that takes longer is given up; the Meter's own deadlines come much sooner."""


class Choice:
    """One answer on its way to one client."""

    __slots__ = (
        "_stops",
        "_wake",
        "done",
        "failed",
        "index",
        "model",
        "reason",
        "said",
        "text",
        "tokens",
        "words",
    )

    def __init__(self, index: int, model: Served, stops: Sequence[str], wake: Callable[[], None]) -> None:
        self.index = index
        self.model = model
        self._stops = stops
        self._wake = wake
        self.done: Done | None = None
        self.failed: Failed | None = None
        self.reason: str | None = None
        self.begin()

    def begin(self) -> None:
        """Nothing has come yet, or all that came is void."""
        self.words = TextStream(self.model.vocabulary, self._stops)
        self.text: list[str] = []
        self.said: list[Logprob] = []
        self.tokens = 0

    @property
    def over(self) -> bool:
        return self.reason is not None or self.failed is not None

    def delivered(self, deliver: Deliver) -> None:
        """Text that is certain now is ready to be taken; what may be a stop string's beginning is held back."""
        push = self.words.push
        for token in deliver.tokens:
            if piece := push(token):
                self.text.append(piece)
        self.tokens += len(deliver.tokens)
        if deliver.logprobs_milli:
            top = deliver.top or ((),) * len(deliver.tokens)
            self.said += map(Logprob, deliver.tokens, deliver.logprobs_milli, top)
        self._wake()

    def finished(self, done: Done) -> None:
        self.done = done
        if piece := self.words.finish():
            self.text.append(piece)
        self.reason = "stop" if self.words.stopped or done.reason == "stop" else "length"
        self._wake()

    def broke(self, failed: Failed) -> None:
        self.failed = failed
        self._wake()

    def taken(self) -> tuple[str, list[Logprob]]:
        """What is ready for the client since the last time."""
        text, said = "".join(self.text), self.said
        self.text, self.said = [], []
        return text, said


AT_ONCE = 8
"""Orders of one request for vectors that run at once: many texts shouldn't fill every provider's queue, nor wait in it until
their gateway takes the provider for dead."""


class Numbers(Choice):
    """An answer that isn't text: its tokens are kept as they come."""

    __slots__ = ("numbers",)

    def __init__(self, index: int, wake: Callable[[], None]) -> None:
        self.index = index
        self._wake = wake
        self.done: Done | None = None
        self.failed: Failed | None = None
        self.reason: str | None = None
        self.begin()

    def begin(self) -> None:
        self.numbers: list[int] = []
        self.tokens = 0

    def delivered(self, deliver: Deliver) -> None:
        self.numbers += deliver.tokens
        self.tokens += len(deliver.tokens)

    def finished(self, done: Done) -> None:
        self.done = done
        self.reason = "stop"
        self._wake()


class Vectors(Numbers):
    """One of many answers that are asked for one by one."""

    __slots__ = ("call",)

    call: "Call"


class Call:
    """All choices of one request.

    Args:
        settle: tells the Meter that it ends here, and which errands its client has; None when the client left.

    Attributes:
        begun: its client has read something.
        given_up: the front waits no longer, though the client does.
        settled: the Meter knows that it ended before it was done.
        charged_wei: what it was charged in spite of its failure.
    """

    def __init__(self, name: int, settle: Callable[["Call", tuple[int, ...] | None], None]) -> None:
        self.name = name
        self._settle = settle
        self.begun = self.given_up = self.settled = False
        self.charged_wei = 0
        self._event = asyncio.Event()
        self.choices: dict[int, Choice] = {}
        """by errand"""
        self.later: deque[Ask] = deque()
        """asked one by one, as those before them end"""

    def wake(self) -> None:
        self._event.set()

    async def news(self) -> None:
        """Wait until something came for any choice."""
        await self._event.wait()
        self._event.clear()

    def in_order(self) -> list[Choice]:
        return sorted(self.choices.values(), key=lambda choice: choice.index)

    def fault(self) -> Fault | None:
        """The first failure, as the client hears it: the rest is stopped, and it is settled what the client pays."""
        failed = self.failed
        if failed is None:
            return None
        self.end(self.shown())
        return of_failure(
            failed.code,
            failed.detail,
            failed.retry_after_s,
            partial=self.charged_wei > 0 or (self.begun and failed.partial),
            charged_wei=self.charged_wei,
        )

    def end(self, shown: tuple[int, ...] | None) -> None:
        if not self.settled:
            self.settled = True
            self._settle(self, shown)

    def shown(self) -> tuple[int, ...]:
        """The errands whose answers the client has, to their ends."""
        return tuple(name for name, it in self.choices.items() if it.done is not None) if self.begun else ()

    @property
    def over(self) -> bool:
        return all(choice.over for choice in self.choices.values())

    @property
    def done(self) -> bool:
        """Whether the Meter has nothing more to do for it."""
        return not self.later and all(choice.done is not None for choice in self.choices.values())

    @property
    def failed(self) -> Failed | None:
        """The first failure."""
        return next((it.failed for it in self.choices.values() if it.failed is not None), None)


class Desk:
    """Opens calls and hands the Meter's effects to them.

    Args:
        handle: steps the Meter (`Driver.handle`).
    """

    def __init__(self, patience_s: float = 10.0) -> None:
        self.handle: Callable[[Any], None] = _unwired
        self.patience_s = patience_s
        self._choices: dict[int, Choice] = {}
        self._calls: dict[int, Call] = {}
        self._names: Iterator[int] = iter(range(1, 2**62))
        self._root = secrets.token_bytes(16)

    @property
    def running(self) -> int:
        return len(self._choices)

    def open(
        self,
        account: Digest,
        model: Served,
        requests: Sequence[Generation] | Sequence[Embedding],
        preference: Preference,
        *,
        streamed: bool,
        tag: bytes = b"",
    ) -> Call:
        """Ask the Meter for an answer to each request: for texts all at once, for vectors `AT_ONCE`."""
        call = Call(next(self._names), self._settle)
        self._calls[call.name] = call
        for index, request in enumerate(requests):
            name = next(self._names)
            if isinstance(request, Generation):
                kind, choice = inference.KIND, Choice(index, model, request.stop, call.wake)
            else:
                kind, choice = embedding.KIND, Vectors(index, call.wake)
            call.choices[name] = self._choices[name] = choice
            ask = Ask(
                name,
                account,
                kind,
                model.address,
                request,
                # Sixteen secret random bytes and a counter: as fresh as drawing anew, and without a system call.
                self._root + name.to_bytes(16, "big"),
                tag,
                preference,
                streamed,
                self.patience_s,
                call.name,
                tuple(requests[1:]) if index == 0 else (),
            )
            if isinstance(choice, Vectors):
                choice.call = call
                call.later.append(ask)
            else:
                self.handle(ask)
        for _ in range(min(AT_ONCE, len(call.later))):
            self.handle(call.later.popleft())
        return call

    def order(
        self, account: Digest, kind: Kind, model: Digest, request: Any, preference: Preference, tag: bytes
    ) -> tuple[Call, Numbers]:
        """Ask the Meter for one answer of a kind whose tokens aren't read here."""
        call, name = Call(next(self._names), self._settle), next(self._names)
        self._calls[call.name] = call
        choice = call.choices[name] = self._choices[name] = Numbers(0, call.wake)
        nonce = self._root + name.to_bytes(16, "big")
        self.handle(
            Ask(
                name,
                account,
                kind,
                model,
                request,
                nonce,
                tag,
                preference,
                patience_s=self.patience_s,
                call=call.name,
            )
        )
        return call, choice

    def close(self, call: Call) -> None:
        """The client has all, or went away: what still runs is stopped."""
        if not call.done:
            left = call.failed is None and not call.given_up
            call.end(None if left else call.shown())
        call.later.clear()
        self._calls.pop(call.name, None)
        for name in call.choices:
            self._choices.pop(name, None)

    def _settle(self, call: Call, shown: tuple[int, ...] | None) -> None:
        self.handle(Abandon(call.name, shown))

    def end_all(self) -> None:
        """The gateway shuts down: every client still here hears so."""
        for name, choice in list(self._choices.items()):
            if not choice.over:
                detail = "this gateway restarts; what came so far was not charged"
                choice.broke(Failed(name, "shutting_down", detail, 2.0, partial=choice.tokens > 0))

    def perform(self, effect: Deliver | Done | Failed | Restarted | Settled) -> None:
        if isinstance(effect, Settled):
            if (call := self._calls.get(effect.call)) is not None:
                call.charged_wei = effect.charged_wei
            return
        choice = self._choices.get(effect.errand)
        if choice is None:
            return
        match effect:
            case Deliver():
                choice.delivered(effect)
            case Done():
                choice.finished(effect)
            case Failed():
                choice.broke(effect)
            case Restarted():
                choice.begin()
        if isinstance(choice, Vectors) and choice.over:
            # Not at once: the Meter is in the middle of a step.
            asyncio.get_running_loop().call_soon(self._next, choice.call)

    def _next(self, call: Call) -> None:
        if call.later and not call.failed:
            self.handle(call.later.popleft())


def _unwired(event: Any) -> None:
    raise AssertionError(f"the desk isn't wired to a meter: {event}")
