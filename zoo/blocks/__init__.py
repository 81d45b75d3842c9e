"""Blocks that several families are built of, with the attribute names of the checkpoints they read."""
