"""Workers of other teams that are connected to this process, and the attempts that they run; knows no gRPC."""
