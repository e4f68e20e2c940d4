"""The main screen's panes: each shows a part of the study and posts what the user wants; none changes state."""
