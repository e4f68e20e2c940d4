"""What results look like on a terminal or as JSON, and progress on standard error. Knows nothing of torch."""

from engine.printing.printer import Printer
from engine.printing.signs import shade

__all__ = ["Printer", "shade"]
