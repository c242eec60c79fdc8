"""The hot path: OpenAI's endpoints as bare ASGI, from bytes in to bytes out.

    headers ──> door ──> limits ──> body ──> idempotency ──> parse ──> tokens ──> desk ──> text ──> bytes

No framework and no models per request stand between; everything else (pages.py) may take its time.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.adapters.catalog import Catalog, Served
from clusterai.gateway.adapters.desk import ANSWER_S, Call, Choice, Desk, Vectors
from clusterai.gateway.adapters.door import Admission, Doors
from clusterai.gateway.adapters.meters import Meters
from clusterai.gateway.adapters.replies import Replies, Reply
from clusterai.gateway.core import chat, shapes
from clusterai.gateway.core.faults import Fault, bad, unknown_model
from clusterai.gateway.core.shapes import Chunks, Endpoint, Head, Logprob, Told
from clusterai.protocol.ids import Digest
from clusterai.work import embedding

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
EVENTS: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
MOST_PROMPTS = 64


class Gone(Exception):
    """The client closed its connection; nobody is left to answer."""


class Front:
    """ASGI handlers of the endpoints that clients pay for."""

    def __init__(
        self,
        desk: Desk,
        catalog: Catalog,
        doors: Doors,
        replies: Replies,
        archive: Archive,
        meters: Meters,
        most_body: int = 8 * 1024 * 1024,
        most_running: int = 4096,
    ) -> None:
        self._desk = desk
        self._catalog = catalog
        self._doors = doors
        self._replies = replies
        self._archive = archive
        self._meters = meters
        self._most_body = most_body
        self._most_running = most_running
        self._boot = secrets.token_hex(8)
        self._count = itertools.count(1)
        self.closing = asyncio.Event()
        """set when the gateway shuts down: streams end with an error event, new requests hear 503"""
        self.busy = 0
        self.idle = asyncio.Event()
        """set while no request runs"""
        self.idle.set()
        self.routes: dict[str, Callable[[Scope, Receive, Send, _Request], Awaitable[None]]] = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completions,
            "/v1/embeddings": self._embeddings,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request on one of `routes`."""
        request = _Request(f"req_{self._boot}{next(self._count):08x}")
        self.busy += 1
        self.idle.clear()
        try:
            try:
                await self.routes[scope["path"]](scope, receive, send, request)
            except Fault as fault:
                await self._refuse(send, request, fault)
        except Gone:
            self._meters.gone.inc()
        finally:
            self.busy -= 1
            if not self.busy:
                self.idle.set()
            request.end()

    # --- the three endpoints ---

    async def _chat(self, scope: Scope, receive: Receive, send: Send, request: "_Request") -> None:
        raw = await self._enter(scope, receive, request)
        body = chat.read(raw, chat.ChatBody)
        model = self._model(body.model)
        wanted = chat.wanted_chat(body, model.habit)
        prompt = await model.tokens_of_chat(chat.messages_of(body))
        await self._answer(receive, send, request, "chat", model, wanted, [prompt])

    async def _completions(self, scope: Scope, receive: Receive, send: Send, request: "_Request") -> None:
        raw = await self._enter(scope, receive, request)
        body = chat.read(raw, chat.CompletionBody)
        model = self._model(body.model)
        wanted = chat.wanted_completion(body, model.habit)
        prompts = [await self._prompt(model, it) for it in chat.prompts_of(body.prompt)]
        if len(prompts) * wanted.n > MOST_PROMPTS:
            raise bad(f"prompts x n is {len(prompts) * wanted.n}; send at most {MOST_PROMPTS}", "prompt")
        await self._answer(receive, send, request, "completions", model, wanted, prompts)

    async def _embeddings(self, scope: Scope, receive: Receive, send: Send, request: "_Request") -> None:
        raw = await self._enter(scope, receive, request)
        body = chat.read(raw, chat.EmbeddingBody)
        model = self._model(body.model, "embedding")
        if body.dimensions not in (None, model.size):
            raise bad(
                f"dimensions is {body.dimensions}; vectors of this model have {model.size}", "dimensions"
            )
        texts = [await self._prompt(model, it, "input") for it in chat.prompts_of(body.input, "input")]
        tokens = sum(map(len, texts))
        requests = chat.embeddings_of(model.address, texts, model.size, model.context)
        admission = self._afford(request, tokens)
        call = self._desk.open(
            admission.account,
            model,
            requests,
            chat.preference_of(body.provider),
            streamed=False,
            tag=request.name or b"",
        )
        async with self._followed(call, receive, request, model) as watcher:
            while not (call.over or call.failed):
                await self._news(call, watcher)
            if (fault := call.fault(shown=False)) is not None:
                raise fault
            told = _told(call, None)
            found = [
                vector
                for choice, asked in zip(call.in_order(), requests, strict=True)
                if isinstance(choice, Vectors)
                for vector in embedding.vectors(asked, tuple(choice.numbers))
            ]
            answer = shapes.embeddings(
                model.name, found, tokens, told, packed=body.encoding_format == "base64"
            )
            headers = [JSON, *told.header()]
            request.keep(Reply(200, headers, answer))
            await self._respond(send, request, 200, headers, answer)

    # --- on the way in ---

    async def _enter(self, scope: Scope, receive: Receive, request: "_Request") -> bytes:
        """Everything that comes before the body is understood."""
        if scope["method"] != "POST":
            raise Fault(405, "invalid_request_error", "method_not_allowed", "use POST here")
        if self.closing.is_set():
            raise Fault(
                503, "service_unavailable", "shutting_down", "this gateway restarts: try again", None, 2.0
            )
        headers: dict[bytes, bytes] = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._most_body:
            raise self._too_large()
        body = await self._body(receive)
        admission = await self._doors.admit("POST", scope["path"], headers, body, "inference")
        request.admit(admission)
        self._limit(admission)
        request.running = True
        if admission.usage is not None:
            admission.usage.running += 1
        key = headers.get(b"idempotency-key")
        if key is not None:
            name, reply = self._replies.begin(
                admission.account, key.decode("latin-1"), body, self._archive.charged_by
            )
            if reply is not None:
                raise _Replayed(reply)
            request.remember(self._replies, name)
        return body

    def _limit(self, admission: Admission) -> None:
        if self.busy > self._most_running:
            raise Fault(429, "rate_limit_error", "gateway_busy", "this gateway is full: try again", None, 1.0)
        usage = admission.usage
        if usage is None:
            return
        if usage.limits.at_once and usage.running >= usage.limits.at_once:
            raise Fault(
                429,
                "rate_limit_error",
                "too_many_at_once",
                f"this key runs {usage.running} requests, as many as it may: wait for one to end",
                None,
                1.0,
            )
        wait_s = usage.requests.take(1, time.monotonic())
        if wait_s:
            raise _slower("requests", usage.requests.limit, wait_s)

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > self._most_body:
                raise self._too_large()
            return body
        parts, size = [body], len(body)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            size += len(part)
            if size > self._most_body:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> Fault:
        return Fault(
            413,
            "invalid_request_error",
            "request_too_large",
            f"the body is larger than {self._most_body} bytes: send less",
        )

    def _model(self, name: str, kind: str = "chat") -> Served:
        model = self._catalog.find(name) or self._catalog.find(name.partition(":")[0])
        if model is None:
            raise unknown_model(name, ", ".join(self._catalog.by_name))
        if model.kind != kind:
            others = [it.name for it in self._catalog.by_name.values() if it.kind == kind]
            raise bad(
                f"the model {model.name!r} is for {model.kind}; for this use one of: {', '.join(others) or 'none here'}",
                "model",
                "unsupported_model",
            )
        return model

    async def _prompt(self, model: Served, prompt: str | list[int], name: str = "prompt") -> tuple[int, ...]:
        if isinstance(prompt, str):
            tokens = await model.tokens_of_text(prompt)
        else:
            tokens = tuple(prompt)
            if any(not 0 <= token < len(model.vocabulary) for token in tokens):
                raise bad(
                    f"{name}: token ids are 0 to {len(model.vocabulary) - 1} here", name, "out_of_range"
                )
        if not prompt or not tokens:
            raise bad(f"{name} is empty: send at least one token", name, "empty_string")
        return tokens

    def _afford(self, request: "_Request", tokens: int) -> Admission:
        """
        Raises:
            Fault: the key may not use so many tokens now.
        """
        admission = request.admission
        assert admission is not None, "nobody gets here unadmitted"
        if admission.usage is not None:
            wait_s = admission.usage.tokens.take(tokens, time.monotonic())
            if wait_s:
                raise _slower("tokens", admission.usage.tokens.limit, wait_s)
        return admission

    @contextlib.asynccontextmanager
    async def _followed(
        self, call: Call, receive: Receive, request: "_Request", model: Served
    ) -> AsyncGenerator["asyncio.Task[None]"]:
        """While a call runs, its client's departure is watched for; afterwards nothing of it is left."""
        watcher = asyncio.get_running_loop().create_task(_departure(receive, call))
        try:
            async with asyncio.timeout(ANSWER_S):
                yield watcher
        except TimeoutError:
            raise Fault(
                504, "server_error", "answer_timeout", "the answer took too long", retry=False
            ) from None
        finally:
            watcher.cancel()
            self._desk.close(call)
            self._meters.ended(model.name, call, time.monotonic() - request.began_s)

    # --- the answer ---

    async def _answer(
        self,
        receive: Receive,
        send: Send,
        request: "_Request",
        endpoint: Endpoint,
        model: Served,
        wanted: chat.Wanted,
        prompts: list[tuple[int, ...]],
    ) -> None:
        seed = wanted.seed if wanted.seed is not None else secrets.randbits(53)
        generations = [
            generation
            for prompt in prompts
            for generation in wanted.generations(model.address, prompt, model.context, seed)
        ]
        admission = self._afford(request, sum(len(it.prompt) + it.max_tokens for it in generations))
        prefix = "chatcmpl-" if endpoint == "chat" else "cmpl-"
        head = Head(
            endpoint, prefix + request.id[4:], int(time.time()), model.name, f"fp_{model.address.hex()[:10]}"
        )
        call = self._desk.open(
            admission.account,
            model,
            generations,
            wanted.preference,
            streamed=wanted.stream,
            tag=request.name or b"",
        )
        prompt_tokens = sum(map(len, prompts))
        async with self._followed(call, receive, request, model) as watcher:
            if wanted.stream:
                chunks = Chunks(head, include_usage=wanted.include_usage)
                await self._stream(send, request, call, watcher, chunks, wanted, seed, prompt_tokens)
            else:
                await self._whole(send, request, call, watcher, head, wanted, seed, prompt_tokens)

    async def _whole(
        self,
        send: Send,
        request: "_Request",
        call: Call,
        watcher: "asyncio.Task[None]",
        head: Head,
        wanted: chat.Wanted,
        seed: int,
        prompt_tokens: int,
    ) -> None:
        while not (call.over or call.failed):
            await self._news(call, watcher)
        if (fault := call.fault(shown=False)) is not None:
            raise fault
        choices = call.in_order()
        told = _told(call, seed)
        body = shapes.whole(
            head,
            [_text(choice, head.endpoint, wanted) for choice in choices],
            _usage(call, prompt_tokens),
            told,
        )
        headers = [JSON, *told.header()]
        request.keep(Reply(200, headers, body))
        await self._respond(send, request, 200, headers, body)

    async def _stream(
        self,
        send: Send,
        request: "_Request",
        call: Call,
        watcher: "asyncio.Task[None]",
        chunks: Chunks,
        wanted: chat.Wanted,
        seed: int,
        prompt_tokens: int,
    ) -> None:
        """Headers wait for the first news, so that what can't even begin is a plain error with its status."""
        choices = call.in_order()
        open_choices = list(choices)
        offsets = [0] * len(choices)
        begun = False
        kept: list[bytes] = []
        while open_choices:
            await self._news(call, watcher)
            out = b""
            if not begun and (fault := call.fault(shown=False)) is not None:
                raise fault
            for choice in list(open_choices):
                text, said = choice.taken()
                if text or said:
                    logprobs = _logprobs(choice, said, wanted, offsets[choice.index])
                    out += chunks.text(choice.index, text, logprobs)
                    offsets[choice.index] += len(text)
                if choice.reason is not None:
                    open_choices.remove(choice)
                    told = None if open_choices else _told(call, seed)
                    out += chunks.finish(choice.index, choice.reason, told)
            if not begun and out:
                begun = True
                out = b"".join(chunks.first(choice.index) for choice in choices) + out
                await _start(send, 200, [*EVENTS, *request.headers()])
            if (fault := call.fault(shown=True)) is not None:
                # Text that came before the failure is still the client's.
                await _more(send, out + b"data: " + fault.json() + b"\n\n", last=True)
                self._meters.faults.labels(str(fault.status), fault.code).inc()
                return
            if not open_choices:
                if wanted.include_usage:
                    out += chunks.usage(_usage(call, prompt_tokens), _told(call, seed))
                out += shapes.DONE
            if request.name is not None:
                kept.append(out)
            if open_choices:
                if out:
                    await _more(send, out)
            else:
                request.keep(Reply(200, EVENTS, b"".join(kept)))
                await _more(send, out, last=True)

    async def _news(self, call: Call, watcher: "asyncio.Task[None]") -> None:
        """Wait for the meter.

        Raises:
            Gone: the client left. Fault: this gateway shuts down.
        """
        await call.news()
        if watcher.done() and not call.over:
            raise Gone

    # --- on the way out ---

    async def _refuse(self, send: Send, request: "_Request", fault: Fault) -> None:
        if isinstance(fault, _Replayed):
            replay: Header = (b"idempotent-replayed", b"true")
            await self._respond(
                send, request, fault.reply.status, [*fault.reply.headers, replay], fault.reply.body
            )
            return
        self._meters.faults.labels(str(fault.status), fault.code).inc()
        await self._respond(send, request, fault.status, [JSON, *fault.headers()], fault.json())

    async def _respond(
        self, send: Send, request: "_Request", status: int, headers: list[Header], body: bytes
    ) -> None:
        length: Header = (b"content-length", b"%d" % len(body))
        await _start(send, status, [*headers, length, *request.headers()])
        await _more(send, body, last=True)


class _Replayed(Fault):
    """Not a fault: the answer is there already."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status, "invalid_request_error", "replayed", "")
        self.reply = reply


class _Request:
    """What one request holds until it ends."""

    __slots__ = ("_replies", "admission", "began_s", "id", "name", "running")

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.began_s = time.monotonic()
        self.admission: Admission | None = None
        self.running = False
        self.name: Digest | None = None
        self._replies: Replies | None = None

    def admit(self, admission: Admission) -> None:
        self.admission = admission

    def remember(self, replies: Replies, name: Digest) -> None:
        self._replies, self.name = replies, name

    def keep(self, reply: Reply) -> None:
        if self._replies is not None and self.name is not None:
            self._replies.keep(self.name, reply)
            self._replies = None

    def headers(self) -> list[Header]:
        found: list[Header] = [(b"x-request-id", self.id.encode())]
        if self.admission is not None:
            found += self.admission.headers
            if self.admission.usage is not None:
                found += self.admission.usage.headers(time.monotonic())
        return found

    def end(self) -> None:
        if self._replies is not None and self.name is not None:
            self._replies.forget(self.name)
        if self.running and self.admission is not None and self.admission.usage is not None:
            self.admission.usage.running -= 1


async def _departure(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.wake()


async def _start(send: Send, status: int, headers: list[Header]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _more(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


def _slower(what: str, limit: int, wait_s: float) -> Fault:
    return Fault(
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
        f"this key may use {limit} {what} a minute: try again in {wait_s:.1f} s",
        None,
        wait_s,
    )


def _told(call: Call, seed: int | None) -> Told:
    dones = [choice.done for choice in call.in_order() if choice.done is not None]
    charges = tuple(done.charged for done in dones if done.charged is not None)
    return Told(charges, seed, len(dones) - len(charges))


def _usage(call: Call, prompt_tokens: int) -> dict[str, Any]:
    cached = sum(choice.done.cached_units for choice in call.choices.values() if choice.done is not None)
    completion = sum(choice.tokens for choice in call.choices.values())
    return shapes.usage(prompt_tokens, completion, min(cached, prompt_tokens))


def _logprobs(choice: Choice, said: list[Logprob], wanted: chat.Wanted, offset: int) -> dict[str, Any] | None:
    if wanted.logprobs < 0:
        return None
    words = choice.model.vocabulary
    if wanted.chat:
        return shapes.chat_logprobs(said, words)
    return shapes.completion_logprobs(said, words, offset)


def _text(choice: Choice, endpoint: Endpoint, wanted: chat.Wanted) -> tuple[str, str, dict[str, Any] | None]:
    text, said = choice.taken()
    return text, choice.reason or "stop", _logprobs(choice, said, wanted, 0)
