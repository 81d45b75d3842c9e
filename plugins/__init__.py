"""Backbone plugins: one file a family. The registry finds every module of this package."""
