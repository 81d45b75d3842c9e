"""Natures of arrays that say where things are in an image: how each moves with the pixels. These modules import jax.

`zoo.targets` lists them; `Training.moves` says which array of a task has which nature.
"""
