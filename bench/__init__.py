"""Benchmarks: each prints a table of what it measured, against a service that runs."""
