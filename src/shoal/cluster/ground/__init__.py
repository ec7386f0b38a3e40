"""What communities, dense groups and heads start from: whitened points, their neighbours, and what those tell."""
