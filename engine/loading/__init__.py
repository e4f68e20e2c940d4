"""From a name to a pair of model and SAE. Empty: presets are needed before the first paint."""
