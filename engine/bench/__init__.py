"""`saescope bench`: the scoreboard's rows, measured on this machine.

Every ratio comes from one run, with one thread and the contenders in turn (A B C A B C …), so that other load on the
machine affects all of them. run.py picks rows, table.py prints them. Modules in rows/ measure them:

    decoding 1, step 2 to 4, toggle 5, ablation 6, encoding 7, memory 8, capture 9, start and loading 10, screen 11
"""
