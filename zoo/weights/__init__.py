"""Weights: where they come from, how they are read safely, and how they meet a model."""
