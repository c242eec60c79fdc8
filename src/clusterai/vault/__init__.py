"""Private data that stays where it lies: what it is, who may compute what on it, what each use costs in privacy.

A vault is kept by an ordinary provider. This room knows its card, its schema, its policy, grants, budgets and the log of uses; it
refuses whatever no grant covers, and whatever the budget doesn't hold any more. What is computed is a kind of work's affair.
"""
