"""Models as this gateway can serve them: it tokenizes and detokenizes itself.

So a provider gets token ids and returns token ids, and can't show a client other text than the tokens that it is paid
and audited for.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from tokenizers import Tokenizer

from clusterai.gateway.core.chat import Habit
from clusterai.gateway.core.faults import bad, unknown_model
from clusterai.models import ChatTemplate, ModelStore, StoredModel, Vocabulary
from clusterai.models.template import BadChat
from clusterai.protocol.ids import Digest
from clusterai.work import Kind
from clusterai.work.inference import Generation
from clusterai.work.inference.core.ending import Ending
from clusterai.work.loading import find

IN_THREAD = 32_768
"""Characters from which on a prompt is tokenized off the event loop: about 5 ms of work."""


class Served(msgspec.Struct, frozen=True):
    """One model that clients may name. `kind` is chat or embedding."""

    name: str
    address: Digest
    context: int
    created_s: int
    vocabulary: Vocabulary
    encode: Callable[[str], tuple[int, ...]]
    chat: Callable[[Sequence[Mapping[str, Any]]], str]
    licence: str = ""
    habit: Habit = Habit()
    kind: str = "chat"
    size: int = 0
    """numbers of a vector, of a model that embeds"""

    async def tokens_of_chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """
        Raises:
            Fault: the model's template refuses these messages.
        """
        size = sum(len(message["content"]) for message in messages)
        return await self._off_loop(size, lambda: self.encode(self._rendered(messages)))

    async def tokens_of(self, prompt: str | list[int], name: str) -> tuple[int, ...]:
        """A prompt, as text or as token ids already; `name` is the body's field.

        Raises:
            Fault: it is empty, or names tokens that aren't.
        """
        if isinstance(prompt, str):
            tokens = await self._off_loop(len(prompt), lambda: self.encode(prompt))
        else:
            tokens = tuple(prompt)
            if any(not 0 <= token < len(self.vocabulary) for token in tokens):
                most = len(self.vocabulary) - 1
                raise bad(f"{name}: token ids are 0 to {most} here", name, "out_of_range")
        if not prompt or not tokens:
            raise bad(f"{name} is empty: send at least one token", name, "empty_string")
        return tokens

    async def _off_loop(self, size: int, work: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        return work() if size < IN_THREAD else await asyncio.to_thread(work)

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        try:
            return self.chat(messages)
        except BadChat as error:
            raise bad(str(error), "messages") from None


class Catalog:
    """The models of this gateway by name and by address."""

    def __init__(self, models: Sequence[Served]) -> None:
        self.by_name = {model.name: model for model in models}
        self.by_address = {model.address: model for model in models}

    def find(self, name: str) -> Served | None:
        """By name, also with OpenRouter's suffix, or by 0x address."""
        found = self.by_name.get(name)
        if found is None and name.startswith("0x") and len(name) == 66:
            try:
                return self.by_address.get(Digest(bytes.fromhex(name[2:])))
            except ValueError:
                return None
        return found

    def wanted(self, name: str, kind: Kind) -> Served:
        """
        Raises:
            Fault: no such model, or it is for another kind of work.
        """
        model = self.find(name) or self.find(name.partition(":")[0])
        if model is None:
            raise unknown_model(name, ", ".join(self.by_name))
        if model.kind != kind.serves:
            others = [it.name for it in self.by_name.values() if it.kind == kind.serves]
            raise bad(
                f"the model {model.name!r} is for {model.kind}; for this use one of: {', '.join(others) or 'none here'}",
                "model",
                "unsupported_model",
            )
        return model

    def follow(self, model: Digest, request: Any) -> Ending | None:
        """What knows where the answer to a request ends: just as its provider does."""
        served = self.by_address.get(model)
        if served is None or not isinstance(request, Generation):
            return None
        return Ending(request, served.vocabulary, served.context)


def of_store(store: ModelStore, names: Sequence[str]) -> Catalog:
    """
    Raises:
        NoSuchModel: a name that isn't in the store.
    """
    return Catalog([_stored(find(store, name)) for name in names])


def _stored(model: StoredModel) -> Served:
    card = model.card
    if card.kind == "embedding":
        return _embedding(model)
    if card.kind != "chat":
        return _without_words(model)
    tokenizer = model.tokenizer()
    template = ChatTemplate(card.template, tokenizer.guarded)
    return Served(
        name=card.name,
        address=model.address,
        context=card.context,
        created_s=max((int(path.stat().st_mtime) for path in model.paths.values()), default=0),
        vocabulary=tokenizer.vocabulary,
        encode=tokenizer.encode,
        chat=template.render,
        licence=card.licence,
        habit=Habit(card.temperature_ppm, card.top_p_ppm),
        kind=card.kind,
    )


def _without_words(model: StoredModel) -> Served:
    """A model whose inputs aren't texts: it is ordered by its kind's own bytes."""
    card = model.card

    def no_words(said: Any) -> Any:
        raise BadChat(f"{card.name} is for {card.kind} inputs and reads no texts")

    return Served(
        name=card.name,
        address=model.address,
        context=card.context,
        created_s=max((int(path.stat().st_mtime) for path in model.paths.values()), default=0),
        vocabulary=Vocabulary((), frozenset(), frozenset()),
        encode=no_words,
        chat=no_words,
        licence=card.licence,
        kind=card.kind,
    )


class _Config(msgspec.Struct):
    """What of a BERT's config.json matters here."""

    hidden_size: int
    max_position_embeddings: int


def _embedding(model: StoredModel) -> Served:
    """Texts are tokenized with the tokens that the model wants around them, and never cut off: too long is refused."""
    card = model.card
    config = msgspec.json.decode(model.paths["config.json"].read_bytes(), type=_Config)
    tokenizer = Tokenizer.from_file(str(model.paths["tokenizer.json"]))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def no_chat(messages: Sequence[Mapping[str, Any]]) -> str:
        raise BadChat(f"{card.name} embeds texts and doesn't chat: POST /v1/embeddings")

    pieces = tuple(
        (tokenizer.id_to_token(token) or "").encode() for token in range(tokenizer.get_vocab_size())
    )
    return Served(
        name=card.name,
        address=model.address,
        context=min(card.context or config.max_position_embeddings, config.max_position_embeddings),
        created_s=int(model.paths["tokenizer.json"].stat().st_mtime),
        vocabulary=Vocabulary(pieces, frozenset(), frozenset()),
        encode=lambda text: tuple(tokenizer.encode(text).ids),
        chat=no_chat,
        licence=card.licence,
        kind=card.kind,
        size=config.hidden_size,
    )
