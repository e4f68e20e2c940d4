"""The entry point: a verb goes to the command line, everything else opens the app."""

from __future__ import annotations

import gc
import sys
import traceback
from types import TracebackType

from engine.records.words.safe_text import safe


def main() -> int:
    """Run saescope; return the exit code."""
    from engine.cli.options import app_arguments

    sys.excepthook = show_defect
    # import neither side before it is clear which one is needed
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
    """Print a traceback, made safe to show, because its message may quote a file."""
    sys.stderr.write(safe("".join(traceback.format_exception(kind, error, trace))))


def open_app(*options: object) -> int:
    """Run the app; print an error if a session or prompt set cannot be read, before anything opens."""
    gc.disable()  # until the first paint, which comes a twentieth sooner
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
