"""Benchmarks that anyone can run: `python -m benchmarks.NAME [--json]`. Ratios in one run, never a timed test."""
