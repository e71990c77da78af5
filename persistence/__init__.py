"""The store of executions: its contract, and its implementations in memory and on Postgres."""
