"""What `clusterai query` does: find vaults, plan and price a question, ask it everywhere, check and join what came."""
