"""Benchmarks of Tacit and its peers, side by side: `python -m bench QUESTION`."""
