"""What the user has, without widgets or engine."""
