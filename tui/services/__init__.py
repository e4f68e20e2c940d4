"""Services behind the screen: requests to the engine, background tasks, autosave, notes, preferences."""
