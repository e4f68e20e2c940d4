"""The engine: models, SAEs, ranking, edits, generation. Never imports textual."""
