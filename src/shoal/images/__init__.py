"""Where images come from and how they are read: sources, the index stage, decoding, views."""
