"""Backbone plugins, one file per family. The registry discovers every module of this package."""
