"""What follows from what: the pure rules of execution."""
