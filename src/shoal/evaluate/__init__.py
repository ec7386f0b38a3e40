"""How well clusters agree with labels; the only reader of labels."""
