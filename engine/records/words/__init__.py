"""Results in sentences, for terminal, screen and report."""
