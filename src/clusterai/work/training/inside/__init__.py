"""What runs in Flower's environment, where nothing of ours is installed: these files alone, by their path. Standard library, numpy, flwr."""
