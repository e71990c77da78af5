"""The write path: what the engine submits becomes rows, a batch of them one statement, and each item gets its answer.

`committer`   gathers the next batch while one is being written: orgs in turn, each in order of submission
`room`        says how much a batch takes, and that what is large is written by itself
`writer`      finds what is wrong with one item, or in the way of it, so that the others are written
`settling`    brings a batch to its outcomes over locks, trouble and lost connections
`session`     is the connection, and reads back what became of what was on its way when it was lost
`flush`       is one transaction: `single` is the usual one statement, `stepwise` the several that tell outcomes apart
`requests`    answers what comes under a request id that is known, `locks` finds whose rows somebody holds
`units`       are what is written: creations, and transitions of one execution that follow each other
`columns`     says what their rows consist of, `encoding` makes rows of them, `statements` take those apart
`sharing`     keeps large payloads once
`condemning`  ends what can neither be read nor go on, beside all that
"""
