"""Learned clusters: what many heads begin with, what they agree on, and whether to trust it."""
