"""Requesters' ways to what lies at providers: calls, which are carried unread; orders of any kind; and what data there is."""

from clusterai.gateway.adapters.calls.calling import CallConfig, Calling
from clusterai.gateway.adapters.calls.pages import CallPages

__all__ = ["CallConfig", "CallPages", "Calling"]
