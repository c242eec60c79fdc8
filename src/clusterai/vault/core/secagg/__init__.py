"""Sums of vectors that nobody may see one by one: masked, exact, with drop-outs, and provable afterwards.

`member.Member` is a vault's side of one round and `collector.Collector` the server's; both are pure. Cryptography comes in by
`primitives.Primitives`, transport by `adapters/aggregation.py`. It refuses to sum fewer than two thirds of those invited, and
says nothing about what is in a sum: the norm of one member's part is bounded only through its group's mean (`robust`), and
what a *sum* tells about one member only by noise (`noise`).
"""
