"""The command line, a file a subject. Empty: its options are needed before the first paint."""
