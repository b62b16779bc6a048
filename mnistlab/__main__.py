"""`python -m mnistlab` is `mnistlab`."""

from mnistlab.cli.main import main

if __name__ == "__main__":
    main()
