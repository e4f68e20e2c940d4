"""From a name to a pair of model and SAE. Imports nothing: presets are needed before the first paint."""
