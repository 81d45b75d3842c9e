"""Plugins: their specs, how they are found and checked, the catalogue, and the look-up of names."""

from zoo.registry.lookup import Registry, registry, reset

__all__ = ["Registry", "registry", "reset"]
