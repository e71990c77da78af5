"""How long tests wait for what should happen at once."""

PATIENCE = 60.0
"""Seconds after which it is taken for lost: a machine that is busy with other things loses nothing."""
