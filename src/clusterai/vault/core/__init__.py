"""What decides: cards, policies, grants, budgets. Pure."""
