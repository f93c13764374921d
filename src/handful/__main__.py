"""``python -m handful`` is the same as ``handful``."""

from handful.cli.main import main

if __name__ == "__main__":
    main()
