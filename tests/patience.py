"""How long a test waits for what is to happen. What is promised is what happens; how fast, bench/ measures.

A machine with other things to do takes many times as long, so what has not happened by then never will.
"""

PATIENCE = 120  # seconds
PATIENCE_MS = 1000 * PATIENCE
