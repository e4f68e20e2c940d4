"""Is the SAE wired right to the model?"""
