"""What people change about a clustering: an append-only log, and the clusters with the changes of the log in force."""
