"""What people change about a clustering: an append-only log, the clusters with its changes, and the fit anew."""
