"""Small helpers that know nothing of experiments: words, names of files, seeds, signals, credentials.

They import nothing else of mnistlab.
"""
