"""What people look at while a search runs and when it is over: views of the event stream, and of nothing else."""
