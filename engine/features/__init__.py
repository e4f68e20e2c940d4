"""Features: ranking them, where they fire, and what is known about one."""
