"""The database explains itself: comments, an order on steps, and queries that the README shows."""

from __future__ import annotations

import re

from persistence.postgres.tables import metadata
from tests.folders import ROOT
from tests.integration.stage import ended, made, step

README = ROOT / "persistence" / "README.md"


async def test_every_table_and_column_is_explained(admin):
    """That they say what the tables of this program say is held by test_migrations.py."""
    for table in metadata.tables.values():
        assert table.comment
        assert all(column.comment for column in table.columns), table.name
        rows = await admin.fetch(
            "SELECT obj_description($1::regclass, 'pg_class') AS text"
            " UNION ALL SELECT col_description($1::regclass, attnum)"
            " FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
            table.name,
        )
        assert all(row["text"] for row in rows), table.name


async def test_the_queries_of_the_readme_find_what_they_say(served, admin):
    name = await made(
        served.client,
        step("zero", "transform", value=1),
        step("b", "fail", retry_policy={"max_attempts": 2, "initial_interval": "30m", "max_interval": "30m"}),
    )
    broken = await made(served.client, step("z", "transform", value=1), step("a", "fail"))
    done = await served.client.execute(broken, {"customer": 7}, labels={"team": "growth"}, correlation_id="order-7")
    await ended(served.client, done.execution_id)
    waiting = await served.client.execute(name, {"customer": 7})
    async for event in served.client.watch(waiting.execution_id):
        if event.HasField("step_retrying"):
            break
    queries = re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(queries) >= 6
    for query in queries:
        assert await admin.fetch(query), query
    steps = next(query for query in queries if "s.position, s.items" in query)
    assert [row["path"] for row in await admin.fetch(steps)] == ["zero", "b"]
