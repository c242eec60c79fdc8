"""The truth of receipts: which are drawn, whether an opened epoch is what was committed, how often to audit.

The room exists so that provider, validator, contract and a stranger's laptop reckon alike. It refuses to vote, to
know any kind of work, and to take anything for the provider's fault that a messenger could have done.
"""

from clusterai.audit.core.draw import drawn, is_drawn
from clusterai.audit.core.opening import ListOpening, ReceiptOpening, open_list, open_receipt, pack_answer
from clusterai.audit.core.rate import Terms, least_rate
from clusterai.audit.core.recount import Code, Commitment, Fault, Rules

__all__ = [
    "Code",
    "Commitment",
    "Fault",
    "ListOpening",
    "ReceiptOpening",
    "Rules",
    "Terms",
    "drawn",
    "is_drawn",
    "least_rate",
    "open_list",
    "open_receipt",
    "pack_answer",
]
