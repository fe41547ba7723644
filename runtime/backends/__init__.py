"""Backends: evaluators of circuits, one file each."""
