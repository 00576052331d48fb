"""`python -m jsd`: see `jsd.cli`."""

import sys

from jsd.cli import main

if __name__ == "__main__":
    sys.exit(main())
