"""Searching: the only package that imports ray and optuna."""
