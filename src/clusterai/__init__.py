"""ClusterAI: one AI cloud out of machines that belong to people who don't trust each other."""
