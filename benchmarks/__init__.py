"""Tables for docs/numbers.md; one command each."""
