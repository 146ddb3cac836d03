"""Kill commands and disturb their disk: the parts of benchmarks/kill.py."""
