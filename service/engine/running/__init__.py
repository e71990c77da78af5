"""Drives executions: what this process owns, runs and gives back."""
