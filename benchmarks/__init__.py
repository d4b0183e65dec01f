"""Benchmarks: peers and scmoe side by side. Not part of the wheel."""
