"""A model folder becomes a card: README.md with what was measured, and figures."""
