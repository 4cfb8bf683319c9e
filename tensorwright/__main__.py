"""`python -m tensorwright` is the command `tw`."""

from tensorwright.tools.cli import main

if __name__ == "__main__":
    main()
