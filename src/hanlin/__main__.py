"""`python -m hanlin` is `hanlin`."""

from hanlin.cli import main

main()
