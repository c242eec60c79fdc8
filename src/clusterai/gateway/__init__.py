"""The gateway: strangers' clients on one side, strangers' providers on the other, and every answer metered in between.

The room exists so that a plain OpenAI client gets verified, paid work out of a network it knows nothing of: it turns
requests into orders, keeps streams alive when providers die, checks receipts, pays by voucher and charges accounts.
It refuses to run models, to judge answers (validators do), and to keep anything that a crash may lose and somebody
was told.
"""
