"""mnistlab: plugin-based, trustworthy hyperparameter search for MNIST-like image classification."""

__version__ = "0.1.0"
