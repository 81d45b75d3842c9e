"""Cached features of frozen backbones, computed once and stored on disk."""
