"""The demo: a workflow that looks at the Python packages installed here, beside a real little HTTP server."""
