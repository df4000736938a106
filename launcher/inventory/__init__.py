"""What is on this host for a job to use, one kind of thing a file; ``dlaunch info`` prints it.

Every probe returns a dictionary of plain values, and where it finds nothing its ``error`` says why. Libraries are loaded
in processes of their own: one that breaks, or hangs, is a line of the report and not its end.
"""
