"""The command line: one command, one file; arguments in, one function call, an exit code out."""
