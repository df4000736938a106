"""Starts the ranks of a job, watches them, and says which one failed and why: ``dlaunch -n 8 train.py``.

`launcher.contract` is the place where the environment that every rank finds is written down.
"""
