"""The command line: running one verb, exit codes. Options are arguments.py's, what is printed looks like is printing's.

Exit codes: 0 done, 1 the work failed, 2 bad usage, 130 stopped with Ctrl+C.
"""

from engine.cli.command import Command
from engine.cli.given import edits, sampling, variants
from engine.cli.run import main

__all__ = ["Command", "edits", "main", "sampling", "variants"]
