"""The command line: each command parses, calls one library function and prints its result.

Heavy imports sit inside the commands, and the commands' modules load when called, so that ``hilum --help``
answers at once.
"""

from hilum.cli.app import app, main

__all__ = ["app", "main"]
