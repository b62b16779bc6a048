"""Training one plan on one device: the loop, its precision, its weights, and why it may end.

It knows one plan and one seed, and never which search they belong to.
"""
