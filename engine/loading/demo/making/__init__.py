"""How the packaged SAE and its feature lists were made."""
