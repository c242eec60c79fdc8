"""What a request can cost at most, asked before anybody has paid: the price in a 402."""

from clusterai.gateway.adapters.catalog import Catalog
from clusterai.gateway.adapters.endpoints import BY_PATH
from clusterai.gateway.core.faults import Fault
from clusterai.market.core.routing import Routing


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
        asked = await BY_PATH[path].read(self._catalog, raw)
        offers = [offer for _, offer in self._routing.offers(asked.model.address)]
        if not offers:
            raise Fault(
                503,
                "service_unavailable",
                "no_provider",
                f"nobody serves {asked.model.name} right now: try again soon; nothing was charged",
                None,
                5.0,
            )
        cap_wei = asked.kind.cap_wei
        return max(
            sum(cap_wei(request, offer.input_price_wei, offer.output_price_wei) for request in asked.requests)
            for offer in offers
        )
