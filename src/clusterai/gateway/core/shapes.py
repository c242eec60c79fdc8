"""OpenAI's responses, written straight to bytes: what is the same in every chunk of a stream is encoded once."""

import base64
import struct
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from clusterai.gateway.core.moneystate import Charged
from clusterai.models.core.text import Vocabulary
from clusterai.protocol.ids import hex0x

Endpoint = Literal["chat", "completions"]

encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"


class Logprob(msgspec.Struct, frozen=True):
    """One token as it was drawn, in thousandths of a nat."""

    token: int
    milli: int
    top: tuple[tuple[int, int], ...]


class Told(msgspec.Struct, frozen=True):
    """What a client hears about who did it and for how much."""

    charges: tuple[Charged, ...]
    seed: int | None
    free: int = 0
    """choices that cost nothing, because their provider was lost after the last token"""

    def body(self) -> dict[str, Any]:
        return {
            "receipts": [
                {
                    "id": hex0x(it.receipt.order),
                    "provider": hex0x(it.receipt.provider),
                    "model": hex0x(it.receipt.model),
                    "input_units": it.receipt.input_units,
                    "output_units": it.receipt.output_units,
                    "price_wei": it.receipt.amount_wei,
                    "epoch": it.receipt.epoch,
                    "status": "claimed",
                }
                for it in self.charges
            ],
            "price_wei": sum(it.receipt.amount_wei for it in self.charges),
            "seed": self.seed,
            "numbers": {"usage": "measured", "price_wei": "claimed"},
        }

    def header(self) -> list[tuple[bytes, bytes]]:
        if not self.charges:
            return []
        text = ",".join(hex0x(it.receipt.order) for it in self.charges)
        return [(b"x-clusterai-receipt", text.encode())]


class Head(msgspec.Struct, frozen=True):
    """What all parts of one response share."""

    endpoint: Endpoint
    id: str
    created_s: int
    model: str
    fingerprint: str

    def fields(self, *, chunk: bool = False) -> dict[str, Any]:
        names = {"chat": "chat.completion", "completions": "text_completion"}
        suffix = ".chunk" if chunk and self.endpoint == "chat" else ""
        return {
            "id": self.id,
            "object": names[self.endpoint] + suffix,
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def whole(
    head: Head, choices: Sequence[tuple[str, str, dict[str, Any] | None]], used: dict[str, Any], told: Told
) -> bytes:
    """A response that isn't streamed; choices as (text, finish reason, logprobs)."""
    body = head.fields()
    body["choices"] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": logprobs,
            "finish_reason": reason,
        }
        if head.endpoint == "chat"
        else {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        for index, (text, reason, logprobs) in enumerate(choices)
    ]
    body["usage"] = used
    body["clusterai"] = told.body()
    return encode(body)


def embeddings(
    model: str, vectors: Sequence[Sequence[float]], tokens: int, told: Told, *, packed: bool
) -> bytes:
    """Vectors as lists of numbers, or `packed` as base64 of little-endian 32-bit floats."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
        for index, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode({"object": "list", "data": data, "model": model, "usage": used, "clusterai": told.body()})


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


class Chunks:
    """The events of one stream."""

    def __init__(self, head: Head, *, include_usage: bool) -> None:
        self._chat = head.endpoint == "chat"
        self._start = b"data: " + encode(head.fields(chunk=True))[:-1] + b',"choices":['
        self._end = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._include_usage = include_usage

    def first(self, index: int) -> bytes:
        if not self._chat:
            return b""
        return self._event(b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,' % index)

    def text(self, index: int, text: str, logprobs: dict[str, Any] | None) -> bytes:
        said = encode(logprobs) if logprobs else b"null"
        key = b'"delta":{"content":%b}' if self._chat else b'"text":%b'
        return self._event(b'{"index":%d,%b,"logprobs":%b,' % (index, key % encode(text), said))

    def finish(self, index: int, reason: str, told: Told | None) -> bytes:
        """The last chunk of a choice; the very last one of a stream without usage carries the receipts."""
        key = b'"delta":{}' if self._chat else b'"text":""'
        choice = b'{"index":%d,%b,"logprobs":null,"finish_reason":%b}' % (index, key, encode(reason))
        if told is None or self._include_usage:
            return self._start + choice + self._end
        return self._start + choice + b'],"clusterai":' + encode(told.body()) + b"}\n\n"

    def usage(self, used: dict[str, Any], told: Told) -> bytes:
        return self._start + b'],"usage":%b,"clusterai":%b}\n\n' % (encode(used), encode(told.body()))

    def _event(self, choice: bytes) -> bytes:
        return self._start + choice + b'"finish_reason":null}' + self._end


def chat_logprobs(said: Sequence[Logprob], words: Vocabulary) -> dict[str, Any]:
    def entry(token: int, milli: int) -> dict[str, Any]:
        raw = words.bytes_of(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": milli / 1000, "bytes": list(raw)}

    return {
        "content": [
            {**entry(it.token, it.milli), "top_logprobs": [entry(token, milli) for token, milli in it.top]}
            for it in said
            if it.token not in words.ends
        ],
        "refusal": None,
    }


def completion_logprobs(said: Sequence[Logprob], words: Vocabulary, offset: int) -> dict[str, Any]:
    """The older endpoint's form; `offset` is where in the text the first token begins."""
    tokens: list[str] = []
    offsets: list[int] = []
    kept = [it for it in said if it.token not in words.ends]
    for it in kept:
        text = words.bytes_of(it.token).decode("utf-8", "replace")
        tokens.append(text)
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": tokens,
        "token_logprobs": [it.milli / 1000 for it in kept],
        "top_logprobs": [
            {words.bytes_of(token).decode("utf-8", "replace"): milli / 1000 for token, milli in it.top}
            for it in kept
        ],
        "text_offset": offsets,
    }
