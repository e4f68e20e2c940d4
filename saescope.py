"""The command's front door: a verb goes to the command line, none to the app. Imports neither before it knows."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs saescope; returns the exit code."""
    from engine.cli import main as command_line

    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
