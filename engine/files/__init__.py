"""What the user keeps: sessions, notes, explanations, prompt sets, exports. No torch."""
