"""The client of a gateway's own endpoints for other people's programs: receipts, audits, accounts, nodes, events.

    from clusterai.sdk import Client
    with Client() as client:                      # CLUSTERAI_BASE_URL or OPENAI_BASE_URL, OPENAI_API_KEY
        receipt = client.receipt("0x…")
        print(receipt.state, receipt.price_wei)

Answers of models are asked for with the `openai` package; this room holds what OpenAI's API has no word for. It
refuses to hold wallets or server code, and it asks twice only what changes nothing.
"""

from clusterai.sdk.client import ApiError, Client, Unreachable
from clusterai.sdk.jobs import Job, JobAudit, JobEvent, JobRequest, Jobs, Plan
from clusterai.sdk.shapes import (
    Account,
    Audits,
    Channel,
    Event,
    Key,
    NewKey,
    Node,
    NodeModel,
    Receipt,
    Status,
    Transcript,
    Withdrawal,
)

__all__ = [
    "Account",
    "ApiError",
    "Audits",
    "Channel",
    "Client",
    "Event",
    "Job",
    "JobAudit",
    "JobEvent",
    "JobRequest",
    "Jobs",
    "Key",
    "NewKey",
    "Node",
    "NodeModel",
    "Plan",
    "Receipt",
    "Status",
    "Transcript",
    "Unreachable",
    "Withdrawal",
]
