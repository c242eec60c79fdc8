"""The client of a gateway's own endpoints for other people's programs: receipts, audits, accounts, models, nodes.

Answers of models are asked for with the `openai` package; this room holds what OpenAI's API has no word for. It
refuses to hold keys or server code.
"""
