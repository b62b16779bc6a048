"""What a ranking says in sentences: the verdict and its notes, for the console and for reports alike."""
