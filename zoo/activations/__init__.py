"""Features of frozen backbones, computed once and kept on disk."""
