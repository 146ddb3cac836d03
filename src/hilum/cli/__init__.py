"""The command line: each command parses, calls one library function and prints its result.

Heavy imports sit inside the commands, and the commands' modules load when called, so that ``hilum --help``
answers at once.
"""

import os

# Read once, when torch loads. By default its threads spin while they wait for each other, for milliseconds at a time;
# beside another process they then wait for a thread that their own spinning keeps from running. Results are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hilum.cli.app import app, main

__all__ = ["app", "main"]
