"""OpenAI's requests read into generations: what is out of range is refused by name, what is unknown is passed over.

JSON numbers become integers here and nowhere else: below this line no float enters a request's bytes.
"""

from typing import Any, Literal, TypeVar

import msgspec

from clusterai.gateway.core.faults import Fault, bad
from clusterai.market.core.routing import Preference
from clusterai.protocol import ids
from clusterai.protocol.ids import Address
from clusterai.work.embedding import Embedding, packed
from clusterai.work.inference import NO_LOGPROBS, Generation, OutOfRange, Sampling, choice_seed, ppm

MOST_CHOICES = 16
MOST_TEXTS = 2048
MOST_MESSAGES = 2048
DEFAULT_ANSWER = 1024
"""Tokens of an answer whose request names no limit; the price of that much must be covered by credit."""

Sort = Literal["price", "latency", "throughput"]
T = TypeVar("T")


class Schema(msgspec.Struct):
    name: str = ""
    schema: Any = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: str
    json_schema: Schema | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class MaxPrice(msgspec.Struct):
    """In wei of the token per model token."""

    prompt: float | None = None
    completion: float | None = None


class ProviderWish(msgspec.Struct):
    """OpenRouter's `provider` object, as far as it can be followed here."""

    only: list[str] | None = None
    order: list[str] | None = None
    ignore: list[str] | None = None
    sort: Sort | None = None
    max_price: MaxPrice | None = None


class Part(msgspec.Struct):
    type: str
    text: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Any = None


class _Common(msgspec.Struct, kw_only=True):
    model: str
    n: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    provider: ProviderWish | None = None


class ChatBody(_Common, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    audio: Any = None
    modalities: list[str] | None = None


class CompletionBody(_Common, kw_only=True):
    prompt: str | list[str | int | list[int]] | None = None
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class EmbeddingBody(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    provider: ProviderWish | None = None


_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (ChatBody, CompletionBody, EmbeddingBody)
}


def read(raw: bytes, kind: type[T]) -> T:
    """Decode a body.

    Raises:
        Fault: not JSON, or a field of the wrong type; it names the field.
    """
    try:
        return _DECODERS[kind].decode(raw)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        param = where.rstrip("`").lstrip(".") or None
        raise bad(f"{param or 'the body'}: {what}", param, "invalid_type") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(
            f"the body is not JSON: {error}; send Content-Type: application/json", None, "invalid_json"
        ) from None


def messages_of(body: ChatBody) -> list[dict[str, Any]]:
    """The chat as templates take it: role and text.

    Raises:
        Fault: empty, too many, or content that isn't text.
    """
    if not body.messages:
        raise bad("messages is empty: send at least one message", "messages", "empty_array")
    if len(body.messages) > MOST_MESSAGES:
        raise bad(f"messages has {len(body.messages)} entries; send at most {MOST_MESSAGES}", "messages")
    found: list[dict[str, Any]] = []
    for at, message in enumerate(body.messages):
        role = "system" if message.role == "developer" else message.role
        if role not in ("system", "user", "assistant"):
            raise bad(
                f"messages[{at}].role is {message.role[:40]!r}; use system, developer, user or assistant",
                f"messages[{at}].role",
            )
        content = message.content
        if isinstance(content, list):
            if any(part.type != "text" or part.text is None for part in content):
                raise bad(
                    "only text parts are understood: leave images, audio and files out",
                    f"messages[{at}].content",
                    "unsupported_content",
                )
            content = "".join(part.text or "" for part in content)
        found.append({"role": role, "content": content or ""})
    return found


class Wanted(msgspec.Struct, frozen=True):
    """How an answer is wanted, whatever the prompt is.

    Attributes:
        most: tokens that the client allows; None leaves it to us.
        seed: the client's, if it gave one.
        chat: whether logprobs are told as the chat endpoint does.
    """

    chat: bool

    n: int
    most: int | None
    sampling: Sampling
    seed: int | None
    stop: tuple[str, ...]
    logprobs: int
    stream: bool
    include_usage: bool
    preference: Preference

    def generations(self, model: bytes, prompt: tuple[int, ...], context: int, seed: int) -> list[Generation]:
        """One generation for each choice.

        Raises:
            Fault: the prompt leaves no room in the context.
        """
        room = context - len(prompt)
        if room < 1:
            raise bad(
                f"the prompt has {len(prompt)} tokens and this model's context is {context}: shorten the prompt",
                "messages",
                "context_length_exceeded",
            )
        most = min(self.most or DEFAULT_ANSWER, room)
        base = self.sampling
        try:
            return [
                Generation(
                    model,
                    prompt,
                    msgspec.structs.replace(base, seed=choice_seed(seed, choice)),
                    most,
                    self.stop,
                    self.logprobs,
                )
                for choice in range(self.n)
            ]
        except OutOfRange as error:
            raise bad(str(error)) from None


class Habit(msgspec.Struct, frozen=True):
    """How a model is sampled when the request doesn't say: what its authors recommend on its card."""

    temperature_ppm: int = 1_000_000
    top_p_ppm: int = 1_000_000


def wanted_chat(body: ChatBody, habit: Habit) -> Wanted:
    """
    Raises:
        Fault: out of range, or something that isn't offered here.
    """
    if body.tools or body.functions:
        raise bad("tools are not offered yet: leave them out", "tools", "unsupported_parameter")
    if body.audio is not None or (body.modalities and body.modalities != ["text"]):
        raise bad(
            "only text is offered: leave audio and modalities out", "modalities", "unsupported_parameter"
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise bad("top_logprobs needs logprobs to be true", "top_logprobs")
    top = _within("top_logprobs", body.top_logprobs, 0, 20)
    logprobs = (top or 0) if body.logprobs else NO_LOGPROBS
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    name = "max_completion_tokens" if body.max_completion_tokens is not None else "max_tokens"
    return _wanted(
        body, habit, _within(name, most, 1, 1_048_576), logprobs, _schema(body.response_format), chat=True
    )


def wanted_completion(body: CompletionBody, habit: Habit) -> Wanted:
    """
    Raises:
        Fault: out of range, or something that isn't offered here.
    """
    for name in ("echo", "suffix"):
        if getattr(body, name):
            raise bad(f"{name} is not offered: leave it out", name, "unsupported_parameter")
    if body.best_of not in (None, 1, body.n):
        raise bad("best_of is not offered: leave it out, or use n", "best_of", "unsupported_parameter")
    top = _within("logprobs", body.logprobs, 0, 20)
    # 16 is what this endpoint always gave who named no limit.
    most = 16 if body.max_tokens is None else _within("max_tokens", body.max_tokens, 1, 1_048_576)
    return _wanted(body, habit, most, NO_LOGPROBS if top is None else top, None, chat=False)


def _wanted(
    body: _Common, habit: Habit, most: int | None, logprobs: int, schema: str | None, *, chat: bool
) -> Wanted:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stop) > 16 or any(len(text.encode()) > 256 for text in stop):
        raise bad("stop: at most 16 strings of at most 256 bytes each", "stop")
    stop = tuple(text for text in stop if text)
    seed = body.seed
    if seed is not None:
        seed = int(_within("seed", seed, -(2**63), 2**64 - 1) or 0) % 2**64
    try:
        sampling = Sampling(
            temperature_ppm=_ppm("temperature", body.temperature, 0, 2, habit.temperature_ppm / 1e6),
            top_p_ppm=_ppm("top_p", body.top_p, 0, 1, habit.top_p_ppm / 1e6),
            top_k=_within("top_k", body.top_k, 0, 1_048_576) or 0,
            min_p_ppm=_ppm("min_p", body.min_p, 0, 1, 0),
            presence_ppm=_ppm("presence_penalty", body.presence_penalty, -2, 2, 0),
            frequency_ppm=_ppm("frequency_penalty", body.frequency_penalty, -2, 2, 0),
            repetition_ppm=_ppm("repetition_penalty", body.repetition_penalty, 0.01, 10, 1),
            logit_bias=_biases(body.logit_bias),
            schema=schema,
        )
    except OutOfRange as error:
        raise bad(str(error), error.field) from None
    return Wanted(
        chat=chat,
        n=_within("n", body.n, 1, MOST_CHOICES) or 1,
        most=most,
        sampling=sampling,
        seed=seed,
        stop=stop,
        logprobs=logprobs,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        preference=preference_of(body.provider),
    )


def _within(name: str, value: int | None, low: int, high: int) -> int | None:
    if value is not None and not low <= value <= high:
        raise bad(f"{name} is {value}; make it between {low} and {high}", name, "out_of_range")
    return value


def _ppm(name: str, value: float | None, low: float, high: float, default: float) -> int:
    if value is None:
        return ppm(default)
    if not low <= value <= high:
        raise bad(f"{name} is {value:g}; make it between {low:g} and {high:g}", name, "out_of_range")
    return ppm(value)


def _biases(biases: dict[str, float] | None) -> tuple[tuple[int, int], ...]:
    if not biases:
        return ()
    found: list[tuple[int, int]] = []
    for token, bias in biases.items():
        if not (token.isascii() and token.isdigit() and len(token) < 9):
            raise bad(f"logit_bias: {token[:40]!r} is not a token id; use ids as keys", "logit_bias")
        if not -100 <= bias <= 100:
            raise bad(
                f"logit_bias of token {token} is {bias:g}; make it between -100 and 100",
                "logit_bias",
                "out_of_range",
            )
        found.append((int(token), round(bias * 1000)))
    found.sort()
    if any(found[i][0] == found[i + 1][0] for i in range(len(found) - 1)):
        raise bad("logit_bias names a token twice", "logit_bias")
    return tuple(found)


def _schema(wanted: ResponseFormat | None) -> str | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return '{"type":"object"}'
    if wanted.type != "json_schema":
        raise bad(
            f"response_format.type is {wanted.type[:40]!r}; use text, json_object or json_schema",
            "response_format.type",
        )
    if wanted.json_schema is None or wanted.json_schema.schema is None:
        raise bad("response_format.json_schema.schema is missing", "response_format.json_schema.schema")
    schema = wanted.json_schema.schema
    if not isinstance(schema, dict | bool):
        raise bad("a JSON schema is an object", "response_format.json_schema.schema")
    # Re-encoded, so that two spellings of one schema are one request; order of keys is the client's, it orders the answer.
    return msgspec.json.encode(schema).decode()


def prompts_of(
    prompt: str | list[str | int | list[int]] | None, name: str = "prompt"
) -> list[str | list[int]]:
    """One or more prompts, each as text or as token ids.

    Raises:
        Fault: empty, or a mixture.
    """
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if not prompt:
        raise bad(
            f"{name} is empty: send a string, or a list of strings or of token ids", name, "empty_array"
        )
    numbers = [it for it in prompt if isinstance(it, int)]
    if len(numbers) == len(prompt):
        return [numbers]
    if numbers:
        raise bad(f"{name} mixes token ids with other prompts: send one kind", name, "invalid_type")
    return [it for it in prompt if not isinstance(it, int)]


def embeddings_of(model: bytes, texts: list[tuple[int, ...]], size: int, context: int) -> list[Embedding]:
    """As few requests as hold all texts.

    Raises:
        Fault: a text longer than the model reads, or too many.
    """
    for at, text in enumerate(texts):
        if len(text) > context:
            raise bad(
                f"input[{at}] has {len(text)} tokens and this model reads {context}: shorten or split it",
                "input",
                "context_length_exceeded",
            )
    if len(texts) > MOST_TEXTS:
        raise bad(f"input has {len(texts)} texts; send at most {MOST_TEXTS}", "input")
    try:
        return packed(model, texts, size)
    except OutOfRange as error:
        raise bad(str(error), "input") from None


def preference_of(wish: ProviderWish | None) -> Preference:
    """
    Raises:
        Fault: an address that is none.
    """
    if wish is None:
        return Preference()
    price = wish.max_price or MaxPrice()
    return Preference(
        only=_addresses("provider.only", wish.only or wish.order),
        ignore=_addresses("provider.ignore", wish.ignore),
        sort="balanced" if wish.sort is None else "price" if wish.sort == "price" else "latency",
        most_input_wei=_most("provider.max_price.prompt", price.prompt),
        most_output_wei=_most("provider.max_price.completion", price.completion),
    )


def _most(name: str, price: float | None) -> int | None:
    if price is None:
        return None
    if not 0 <= price < 2**63:
        raise bad(f"{name} is {price:g}; prices are wei per token, from 0", name, "out_of_range")
    return int(price)


def _addresses(name: str, texts: list[str] | None) -> tuple[Address, ...]:
    try:
        return tuple(ids.address(text) for text in texts or ())
    except ids.BadId as error:
        raise bad(f"{name}: {error}", name) from None


__all__ = [
    "ChatBody",
    "CompletionBody",
    "EmbeddingBody",
    "Fault",
    "Wanted",
    "embeddings_of",
    "messages_of",
    "preference_of",
    "prompts_of",
    "read",
    "wanted_chat",
    "wanted_completion",
]
