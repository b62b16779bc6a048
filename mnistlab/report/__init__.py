"""Reports of runs: results, events and, where the data is at hand, predictions -> one page that can be sent."""
