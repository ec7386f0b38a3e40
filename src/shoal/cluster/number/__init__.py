"""How many clusters: the evidence for a number, and the choice of one."""
