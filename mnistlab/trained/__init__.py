"""What can be done with a model that a run has trained: train it again, export it, ask it about pictures."""
