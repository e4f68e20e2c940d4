"""The command's front door. Without a verb it gives the tour, until the app is there."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs saescope; returns the exit code."""
    from engine.cli import main as command_line

    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
