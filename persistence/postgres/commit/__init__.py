"""The write path: what the engine submits becomes rows, a batch of them one statement, and each item gets its answer.

`committer` gathers batches of `units`, `writer` brings each unit to its outcome whatever happens on the way, `flush`
writes a batch in one transaction: by the one statement of `single`, or statement by statement.
"""
