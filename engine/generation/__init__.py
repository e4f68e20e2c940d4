"""Text under edits."""
