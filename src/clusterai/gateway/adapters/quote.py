"""What a request can cost at most, asked before anybody has paid: the price in a 402."""

from clusterai.gateway.adapters.catalog import Catalog
from clusterai.gateway.core import chat
from clusterai.gateway.core.faults import Fault, bad, unknown_model
from clusterai.market.core.routing import Routing
from clusterai.work.inference import KIND


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
        body = chat.read(raw, chat.ChatBody if path == "/v1/chat/completions" else chat.CompletionBody)
        model = self._catalog.find(body.model) or self._catalog.find(body.model.partition(":")[0])
        if model is None:
            raise unknown_model(body.model, ", ".join(self._catalog.by_name))
        if isinstance(body, chat.ChatBody):
            wanted = chat.wanted_chat(body, model.habit)
            prompts = [await model.tokens_of_chat(chat.messages_of(body))]
        else:
            wanted = chat.wanted_completion(body, model.habit)
            texts = chat.prompts_of(body.prompt)
            prompts = [await model.tokens_of_text(it) if isinstance(it, str) else tuple(it) for it in texts]
        if not all(prompts):
            raise bad("prompt is empty: send at least one token", "prompt", "empty_string")
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
            sum(
                KIND.cap_wei(generation, offer.input_price_wei, offer.output_price_wei)
                for prompt in prompts
                for generation in wanted.generations(model.address, prompt, model.context, 0)
            )
            for offer in offers
        )
