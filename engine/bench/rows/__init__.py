"""The measurements of the scoreboard's rows."""
