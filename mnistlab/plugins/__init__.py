"""Finding, checking and registering plugins, and writing the first files of a new one.

It knows what kinds of plugins there are, and never trains one: experiments and trainings ask it for them.
"""
