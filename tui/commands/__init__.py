"""The commands that keys run, one module per subject."""
