"""Every image's nearest neighbours by cosine similarity: exact, approximate past a size, and those of new images."""
