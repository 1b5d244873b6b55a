"""`python -m e2kdisk` is the command e2kdisk."""

import sys

from e2kdisk.tools.main import main

if __name__ == "__main__":
    sys.exit(main())
