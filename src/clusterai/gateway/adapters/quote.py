"""What a request can cost at most, asked before anybody has paid: the price in a 402."""

from collections.abc import Sequence
from typing import Any

from clusterai.gateway.adapters.catalog import Catalog, Served
from clusterai.gateway.core import chat
from clusterai.gateway.core.faults import Fault, bad, unknown_model
from clusterai.market.core.routing import Routing
from clusterai.work import Kind, embedding, inference


class Quotes:
    """Prices of the models that linked providers offer now: the dearest counts, since any of them may do the work."""

    def __init__(self, catalog: Catalog, routing: Routing) -> None:
        self._catalog = catalog
        self._routing = routing

    async def __call__(self, path: str, raw: bytes) -> int:
        """
        Raises:
            Fault: what the request itself deserves, before money is spoken of.
        """
        model, kind, requests = await self._asked(path, raw)
        offers = [offer for _, offer in self._routing.offers(model.address)]
        if not offers:
            raise Fault(
                503,
                "service_unavailable",
                "no_provider",
                f"nobody serves {model.name} right now: try again soon; nothing was charged",
                None,
                5.0,
            )
        return max(
            sum(kind.cap_wei(request, offer.input_price_wei, offer.output_price_wei) for request in requests)
            for offer in offers
        )

    async def _asked(self, path: str, raw: bytes) -> tuple[Served, Kind, Sequence[Any]]:
        """The requests that a body will become, and the kind of work that they are."""
        if path == "/v1/embeddings":
            embed = chat.read(raw, chat.EmbeddingBody)
            model = self._model(embed.model, embedding.KIND)
            texts = await self._prompts(model, embed.input, "input")
            return model, embedding.KIND, chat.embeddings_of(model.address, texts, model.size, model.context)
        body = chat.read(raw, chat.ChatBody if path == "/v1/chat/completions" else chat.CompletionBody)
        model = self._model(body.model, inference.KIND)
        if isinstance(body, chat.ChatBody):
            wanted = chat.wanted_chat(body, model.habit)
            prompts = [await model.tokens_of_chat(chat.messages_of(body))]
        else:
            wanted = chat.wanted_completion(body, model.habit)
            prompts = await self._prompts(model, body.prompt, "prompt")
        requests = [
            generation
            for prompt in prompts
            for generation in wanted.generations(model.address, prompt, model.context, 0)
        ]
        return model, inference.KIND, requests

    def _model(self, name: str, kind: Kind) -> Served:
        model = self._catalog.find(name) or self._catalog.find(name.partition(":")[0])
        if model is None:
            raise unknown_model(name, ", ".join(self._catalog.by_name))
        if model.kind != kind.serves:
            raise bad(f"the model {model.name!r} is for {model.kind}", "model", "unsupported_model")
        return model

    async def _prompts(
        self, model: Served, given: str | list[str | int | list[int]] | None, name: str
    ) -> list[tuple[int, ...]]:
        texts = chat.prompts_of(given, name)
        prompts = [await model.tokens_of_text(it) if isinstance(it, str) else tuple(it) for it in texts]
        if not all(prompts):
            raise bad(f"{name} is empty: send at least one token", name, "empty_string")
        return prompts
