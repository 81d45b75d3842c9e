"""The demonstration: drawn images, weights that were trained on them, and what they are good for on unseen classes."""
