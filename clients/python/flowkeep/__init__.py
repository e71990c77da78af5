"""The Flowkeep client: generated stubs in `flowkeep.v1`, and a thin client over them."""
