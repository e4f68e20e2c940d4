"""The command's front door: a verb goes to the command line, everything else opens the app."""

from __future__ import annotations

import gc
import sys
import traceback
from types import TracebackType

from engine.records.words.tokens import safe


def main() -> int:
    """Runs saescope; returns the exit code."""
    from engine.cli.options import app_arguments

    sys.excepthook = show_defect
    # neither side is imported before it is known which one is wanted
    options = app_arguments(sys.argv[1:])
    if options is None:
        from engine.cli.run import main as command_line

        return command_line(sys.argv[1:])
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("error: the app needs a terminal.", file=sys.stderr)
        print("For scripts and pipes there are verbs: saescope --help lists them.", file=sys.stderr)
        return 2
    return open_app(*options)


def show_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback, safe to show: its message may quote a file."""
    sys.stderr.write(safe("".join(traceback.format_exception(kind, error, trace))))


def open_app(*options: object) -> int:
    """The app; a session or prompt set that cannot be read is said before anything opens."""
    gc.disable()  # until the first paint: a twentieth of the time to it
    from engine.records.errors import SaescopeError
    from prompts import PromptSetError
    from tui.start import run

    try:
        return run(*options)  # type: ignore[arg-type]
    except (SaescopeError, PromptSetError) as error:
        print(safe(f"error: {error.message}\n{error.remedy}"), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
