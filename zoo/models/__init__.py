"""From names to a model: the contracts of backbone and task, `create`, and how models are saved and loaded."""
