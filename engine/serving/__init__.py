"""Runs requests, in this process or another, and carries them there.

Empty, because the app imports `client` before its first paint.
"""
