"""From a TOML file to a space of plans: what may be set, what is searched, which data it is about.

It reads and checks, and never trains anything or writes into a run directory.
"""
