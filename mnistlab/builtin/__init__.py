"""The plugins that come with mnistlab. They enter through the entry points of `pyproject.toml`, like any other.

What they import of mnistlab is what every plugin may import: `mnistlab.api` and `mnistlab.errors`.
"""
