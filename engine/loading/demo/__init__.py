"""The packaged demo: its model, its SAE, and the scripts that made them."""
