"""Which features, where, and what they are."""
