"""The live dashboard: frames drawn from a state, and the terminal that shows them.

It reads a state of the run, and never the run directory.
"""
