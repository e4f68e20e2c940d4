"""The language model, the SAE, and the pair of both."""
