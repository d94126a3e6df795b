"""`python -m mlrunbook.cli`: the command line without its console script."""

from mlrunbook.cli.main import main

if __name__ == "__main__":
    main()
