"""OpenAI's /v1/chat/completions and /v1/completions: a prompt in, text out, whole or as it comes."""

import secrets
import time
from typing import Any

import msgspec

from clusterai.gateway.adapters.asgi import JSON
from clusterai.gateway.adapters.catalog import Catalog, Served
from clusterai.gateway.adapters.desk import Call, Choice
from clusterai.gateway.adapters.endpoints.port import Asked
from clusterai.gateway.adapters.exchange import Exchange
from clusterai.gateway.core import chat, shapes
from clusterai.gateway.core.faults import bad
from clusterai.gateway.core.shapes import Chunks, Head, Logprob
from clusterai.work import inference

MOST_PROMPTS = 64


class Chat:
    path = "/v1/chat/completions"

    async def read(self, catalog: Catalog, raw: bytes) -> Asked:
        body = chat.read(raw, chat.ChatBody)
        model = catalog.wanted(body.model, inference.KIND)
        wanted = chat.wanted_chat(body, model.habit)
        return _asked(model, wanted, [await model.tokens_of_chat(chat.messages_of(body))])


class Completions:
    path = "/v1/completions"

    async def read(self, catalog: Catalog, raw: bytes) -> Asked:
        body = chat.read(raw, chat.CompletionBody)
        model = catalog.wanted(body.model, inference.KIND)
        wanted = chat.wanted_completion(body, model.habit)
        prompts = [await model.tokens_of(it, "prompt") for it in chat.prompts_of(body.prompt)]
        if len(prompts) * wanted.n > MOST_PROMPTS:
            raise bad(f"prompts x n is {len(prompts) * wanted.n}; send at most {MOST_PROMPTS}", "prompt")
        return _asked(model, wanted, prompts)


def _asked(model: Served, wanted: chat.Wanted, prompts: list[tuple[int, ...]]) -> Asked:
    seed = wanted.seed if wanted.seed is not None else secrets.randbits(53)
    requests = [
        generation
        for prompt in prompts
        for generation in wanted.generations(model.address, prompt, model.context, seed)
    ]
    tokens = sum(len(it.prompt) + it.max_tokens for it in requests)
    telling = _Telling(model, wanted, seed, sum(map(len, prompts)))
    return Asked(inference.KIND, model, requests, tokens, wanted.preference, wanted.stream, telling.tell)


class _Telling(msgspec.Struct, frozen=True):
    """How these answers are told."""

    model: Served
    wanted: chat.Wanted
    seed: int
    prompt_tokens: int

    async def tell(self, exchange: Exchange) -> None:
        prefix = "chatcmpl-" if self.wanted.chat else "cmpl-"
        head = Head(
            "chat" if self.wanted.chat else "completions",
            prefix + exchange.id[4:],
            int(time.time()),
            self.model.name,
            f"fp_{self.model.address.hex()[:10]}",
        )
        if self.wanted.stream:
            await self._stream(exchange, Chunks(head, include_usage=self.wanted.include_usage))
        else:
            await self._whole(exchange, head)

    async def _whole(self, exchange: Exchange, head: Head) -> None:
        await exchange.ended()
        told = exchange.told(self.seed)
        choices = [self._text(choice) for choice in exchange.call.in_order()]
        body = shapes.whole(head, choices, self._usage(exchange.call), told)
        await exchange.respond([JSON, *told.header()], body)

    async def _stream(self, exchange: Exchange, chunks: Chunks) -> None:
        """Headers wait for the first news, so that what can't even begin is a plain error with its status."""
        call = exchange.call
        choices = call.in_order()
        open_choices = list(choices)
        offsets = [0] * len(choices)
        while open_choices:
            await exchange.news()
            out = b""
            if not call.begun and (fault := call.fault()) is not None:
                raise fault
            for choice in list(open_choices):
                text, said = choice.taken()
                if text or said:
                    logprobs = self._logprobs(choice, said, offsets[choice.index])
                    out += chunks.text(choice.index, text, logprobs)
                    offsets[choice.index] += len(text)
                if choice.reason is not None:
                    open_choices.remove(choice)
                    told = None if open_choices else exchange.told(self.seed)
                    out += chunks.finish(choice.index, choice.reason, told)
            if not call.begun and out:
                out = b"".join(chunks.first(choice.index) for choice in choices) + out
                await exchange.begin()
            if (fault := call.fault()) is not None:
                await exchange.break_off(out, fault)
                return
            if open_choices:
                await exchange.more(out)
                continue
            if self.wanted.include_usage:
                out += chunks.usage(self._usage(call), exchange.told(self.seed))
            await exchange.finish(out + shapes.DONE)

    def _usage(self, call: Call) -> dict[str, Any]:
        cached = sum(choice.done.cached_units for choice in call.choices.values() if choice.done is not None)
        completion = sum(choice.tokens for choice in call.choices.values())
        return shapes.usage(self.prompt_tokens, completion, min(cached, self.prompt_tokens))

    def _logprobs(self, choice: Choice, said: list[Logprob], offset: int) -> dict[str, Any] | None:
        if self.wanted.logprobs < 0:
            return None
        words = choice.model.vocabulary
        if self.wanted.chat:
            return shapes.chat_logprobs(said, words)
        return shapes.completion_logprobs(said, words, offset)

    def _text(self, choice: Choice) -> tuple[str, str, dict[str, Any] | None]:
        text, said = choice.taken()
        return text, choice.reason or "stop", self._logprobs(choice, said, 0)
