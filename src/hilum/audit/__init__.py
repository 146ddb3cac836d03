"""Audit of a dataset and of a model: duplicates, leaks and shortcuts."""
