"""The scoreboard's rows, a file each."""
