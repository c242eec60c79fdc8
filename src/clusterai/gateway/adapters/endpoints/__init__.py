"""The paid endpoints, by the kind of work that they ask for.

A kind of work brings its own by one line here: a file that reads bodies into its requests and tells their answers. Doors, limits,
prices (also the 402's), orders and receipts are the front's, and the same for all. It refuses to know JSON of two kinds in one file.
"""

from clusterai.gateway.adapters.endpoints.chat import Chat, Completions
from clusterai.gateway.adapters.endpoints.embeddings import Embeddings
from clusterai.gateway.adapters.endpoints.port import Asked, Endpoint
from clusterai.work import embedding, inference

ENDPOINTS: dict[str, tuple[Endpoint, ...]] = {
    inference.KIND.name: (Chat(), Completions()),
    embedding.KIND.name: (Embeddings(),),
}
BY_PATH: dict[str, Endpoint] = {it.path: it for endpoints in ENDPOINTS.values() for it in endpoints}

__all__ = ["BY_PATH", "ENDPOINTS", "Asked", "Endpoint"]
