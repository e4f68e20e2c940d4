"""The command line, one file per subject. Empty, since engine.cli.options is needed before the first paint."""
