"""``python -m scmoe`` is the command line."""

from scmoe.cli import main

if __name__ == "__main__":
    main(prog_name="scmoe")
