"""Results on a terminal or as JSON, and progress on standard error. Knows nothing of torch."""

from engine.cli.printing.printer import Printer

__all__ = ["Printer"]
