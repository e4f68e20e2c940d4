"""The language model, the SAE, and both as a pair."""
