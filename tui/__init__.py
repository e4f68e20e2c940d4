"""The Textual app. It talks to the engine through engine.client only and never imports torch."""
