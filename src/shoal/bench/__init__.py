"""`shoal bench`: named benchmarks that anyone can run, methods by backbones by seeds, beside outside references."""
