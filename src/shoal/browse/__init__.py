"""`shoal browse`: a local page to look at a run, correct it, and take it away."""
