"""Object detection: boxes with a class and a score, on any backbone that gives a pyramid."""
