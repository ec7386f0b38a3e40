"""Learning from scratch: pretext tasks, SCAN with the encoder, self-labelling."""
