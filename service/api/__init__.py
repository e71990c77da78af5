"""The gRPC side: wire to domain, domain to wire, errors to status."""
