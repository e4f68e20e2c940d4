"""Widgets that several screens or panes use."""
