"""The main screen's panes: each shows a part of the study, and has the keys that change it."""
