"""The daemon that looks: it has drawn receipts opened, does a little of the work again, and votes.

The room exists so that cheating costs more than it saves. It refuses to accuse on what a messenger, an outage or a slow
machine could have caused, to sign two verdicts on one receipt, and to vote on another's word.
"""
