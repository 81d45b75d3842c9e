"""Tests of an installed zoo: `python -m pytest --pyargs zoo`."""
