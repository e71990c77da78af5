"""One action on many executions, as an operation that outlives its caller and its process."""
