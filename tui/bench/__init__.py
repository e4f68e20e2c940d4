"""The screen's part of `saescope bench` (row 11): processes that the engine's bench starts, each printing JSON.

They are here because the engine may not import the screen; the engine's side is engine/bench/rows/screen.py.
"""
