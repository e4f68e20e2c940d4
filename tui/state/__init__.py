"""The state of the user's work, without widgets or engine."""
