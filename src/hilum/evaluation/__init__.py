"""Evaluate models on a dataset: metrics with intervals, plots, reports, comparisons."""
