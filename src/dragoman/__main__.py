"""`python -m dragoman` and the `dragoman` command."""

from dragoman.tui.cli import main

if __name__ == "__main__":
    main()
