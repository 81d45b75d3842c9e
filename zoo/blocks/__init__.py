"""Blocks shared by several backbone families, with the attribute names of the checkpoints they read."""
