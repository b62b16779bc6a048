"""What runs in the process of a worker: one training of a trial or of a confirmation, watched and captured.

It never writes into a run directory: it answers, and the driver writes.
"""
