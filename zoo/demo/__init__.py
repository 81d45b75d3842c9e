"""The demonstration: drawn images, weights pretrained on them, and a comparison on new classes."""
