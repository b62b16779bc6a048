"""Everything that needs Ray: its start, its nodes and workers, and the executor of trials.

Nothing outside decides by it what a trial is: that is the searcher's and the recorder's.
"""
