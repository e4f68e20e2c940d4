"""Generating and scoring text under edits."""
