"""From images to embeddings: backbones, the engines that run them, and the embedding stage."""
