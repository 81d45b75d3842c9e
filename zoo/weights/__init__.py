"""Weights: fetch checkpoints, read them safely, and load them into a model."""
