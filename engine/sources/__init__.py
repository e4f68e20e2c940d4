"""Where models and SAEs come from: names, presets, the hub, what they take of memory. Reads none of their weights."""
