"""Rentals at the gateway: the desk's hands, and its pages."""

from clusterai.gateway.adapters.rentals.pages import RentalPages
from clusterai.gateway.adapters.rentals.renting import Renting

__all__ = ["RentalPages", "Renting"]
