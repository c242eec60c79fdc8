"""OpenAI's /v1/embeddings: texts in, vectors out, all at once."""

import msgspec

from clusterai.gateway.adapters.asgi import JSON
from clusterai.gateway.adapters.catalog import Catalog, Served
from clusterai.gateway.adapters.desk import Vectors
from clusterai.gateway.adapters.endpoints.port import Asked
from clusterai.gateway.adapters.exchange import Exchange
from clusterai.gateway.core import chat, shapes
from clusterai.gateway.core.faults import bad
from clusterai.work import embedding
from clusterai.work.embedding import Embedding


class Embeddings:
    path = "/v1/embeddings"

    async def read(self, catalog: Catalog, raw: bytes) -> Asked:
        body = chat.read(raw, chat.EmbeddingBody)
        model = catalog.wanted(body.model, embedding.KIND)
        if body.dimensions not in (None, model.size):
            raise bad(
                f"dimensions is {body.dimensions}; vectors of this model have {model.size}", "dimensions"
            )
        texts = [await model.tokens_of(it, "input") for it in chat.prompts_of(body.input, "input")]
        requests = chat.embeddings_of(model.address, texts, model.size, model.context)
        tokens = sum(map(len, texts))
        told = _Telling(model, requests, tokens, body.encoding_format == "base64")
        preference = chat.preference_of(body.provider)
        return Asked(embedding.KIND, model, requests, tokens, preference, False, told.tell)


class _Telling(msgspec.Struct, frozen=True):
    model: Served
    requests: list[Embedding]
    tokens: int
    packed: bool

    async def tell(self, exchange: Exchange) -> None:
        await exchange.ended()
        told = exchange.told(None)
        found = [
            vector
            for choice, asked in zip(exchange.call.in_order(), self.requests, strict=True)
            if isinstance(choice, Vectors)
            for vector in embedding.vectors(asked, tuple(choice.numbers))
        ]
        body = shapes.embeddings(self.model.name, found, self.tokens, told, packed=self.packed)
        await exchange.respond([JSON, *told.header()], body)
