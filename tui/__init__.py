"""The Textual app. It talks to the engine through engine.serving only and never imports torch."""
