"""The provider: takes orders of gateways, does the work, signs receipts, commits them, and collects its pay.

The room exists so that a machine with a model earns what it worked for, from gateways it doesn't trust, under audits it
can always answer. It refuses unbounded credit, work that its channel doesn't cover, and to forget a transcript
before nobody can ask for it any more.
"""
