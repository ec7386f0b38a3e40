"""One encoder: what it is, where its weights are, and the engines that run it."""
