"""Natures of arrays with positions in an image: how each moves with the pixels. These modules import jax.

`zoo.targets` lists the natures; `Training.moves` gives the nature of each array of a task.
"""
