"""The Flowkeep server: command line, gRPC API and execution engine."""
