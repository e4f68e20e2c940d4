"""Widgets of no subject."""
