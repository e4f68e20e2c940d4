"""The doctor: checks whether a SAE is wired correctly to its model."""
