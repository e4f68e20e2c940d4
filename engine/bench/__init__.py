"""`saescope bench`: rows 7 to 10 of the scoreboard, measured on this machine.

Every ratio is of one run, with one thread and the contenders in turn (A B C A B C …), so that whatever else the
machine does falls on all of them. One module a row; run.py picks rows, table.py prints them.
"""
