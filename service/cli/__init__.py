"""The `flowkeep` command, over the public client."""
