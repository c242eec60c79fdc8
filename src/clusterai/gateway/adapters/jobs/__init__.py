"""Jobs at the gateway: the hands of the desk, what followers are told, whose content is whose, and the HTTP endpoints."""

from clusterai.gateway.adapters.jobs.leasing import Leasing
from clusterai.gateway.adapters.jobs.pages import JobPages

__all__ = ["JobPages", "Leasing"]
