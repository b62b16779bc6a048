"""Small helpers that know nothing of experiments: words, names of files, seeds, signals, credentials,
the seal of the test set.

They import nothing of mnistlab but its errors.
"""
