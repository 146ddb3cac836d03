"""The command line: each command parses its options, calls one library function and prints the result.

Command modules and heavy imports are loaded when a command is called, which keeps ``hilum --help`` fast.
"""

import os

# OpenMP reads this once, when torch is loaded. By default, waiting threads spin for milliseconds, which slows training
# down when other processes compete for the same cores. Results do not change.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hilum.cli.app import app, main

__all__ = ["app", "main"]
