"""Task adapters: one file or folder a task. The registry finds every module of this package."""
