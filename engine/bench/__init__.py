"""`saescope bench`: the scoreboard's rows, measured on this machine.

Every ratio is of one run, with one thread and the contenders in turn (A B C A B C …), so that whatever else the
machine does falls on all of them. run.py picks rows, table.py prints them; the rows are measured by

    pair 1, step 2 to 4, toggle 5, ablation 6, encode 7, memory 8, capture 9, start and load 10, screen 11
"""
