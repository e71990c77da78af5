"""The statements of the write path, each over a set of rows, with parameters that have names.

`statements.sql` has them as Postgres gets them, which `make generate` writes and a test holds current.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from persistence.postgres.commit import columns
from persistence.postgres.commit.encoding import listed
from persistence.postgres.records import EXECUTION_COLUMNS, HAS_BREAKPOINTS, selected

_PARAMETER = re.compile(r"(?<!:):([a-z]\w*)")


class Statement:
    """A statement whose parameters are written as `:name`; `text` is what Postgres takes, with their numbers."""

    def __init__(self, template: str) -> None:
        self.template = template.strip()
        self.parameters = tuple(dict.fromkeys(_PARAMETER.findall(self.template)))
        numbers = {name: f"${number}" for number, name in enumerate(self.parameters, start=1)}
        self.text = _PARAMETER.sub(lambda found: numbers[found[1]], self.template)

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the values of the parameters in the order of their numbers."""
        return [values[name] for name in self.parameters]


# The lock keeps a workflow from being deleted beside a creation that would then have missed the cancelling. A revision
# is given where it must be the latest. And it keeps a workflow from being paused, or resumed, beside a creation.
LIVE_WORKFLOWS = Statement(f"""
SELECT w.org_id, w.id, u.revision, w.pause IS NOT NULL AS is_paused, coalesce({HAS_BREAKPOINTS}, false) AS is_held
FROM unnest(:workflow_orgs::text[], :workflow_ids::uuid[], :workflow_revisions::int[]) AS u(org_id, id, revision)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
WHERE w.delete_time IS NULL AND (u.revision = 0 OR u.revision = w.revision) FOR KEY SHARE OF w""")  # noqa: S608

# Of several batches at once, one after the other counts what it takes.
LOCK_BREAKPOINTS = Statement(f"""
SELECT w.org_id, w.id, w.breakpoints, w.breakpoints_left, {selected(("breakpoints_until",), "w.")},
    coalesce({HAS_BREAKPOINTS}, false) AS is_held
FROM unnest(:workflow_orgs::text[], :workflow_ids::uuid[]) AS u(org_id, id)
JOIN workflows w ON w.org_id = u.org_id AND w.id = u.id
ORDER BY w.org_id, w.id FOR NO KEY UPDATE OF w""")  # noqa: S608 - our own columns

TAKE_BREAKPOINTS = Statement("""
UPDATE workflows w SET breakpoints_left = nullif(u.breakpoints_left, 0),
    breakpoints = CASE WHEN u.breakpoints_left > 0 THEN w.breakpoints END,
    breakpoints_until = CASE WHEN u.breakpoints_left > 0 THEN w.breakpoints_until END
FROM unnest(:workflow_orgs::text[], :workflow_ids::uuid[], :lefts::int[]) AS u(org_id, id, breakpoints_left)
WHERE w.org_id = u.org_id AND w.id = u.id""")

INSERT_REQUESTS = Statement(f"""
{columns.REQUEST.insert("requests", "requests")}
ON CONFLICT DO NOTHING RETURNING execution_id""")

# Those just taken, of creations that are refused.
GIVE_BACK_REQUESTS = Statement("""
DELETE FROM requests r USING unnest(:orgs::text[], :request_ids::text[]) AS u(org_id, request_id)
WHERE r.org_id = u.org_id AND r.request_id = u.request_id""")

KNOWN_REQUESTS = Statement(f"""
SELECT r.org_id AS request_org, r.request_id AS request, r.method, r.content_hash, r.execution_id,
    {selected(EXECUTION_COLUMNS, "e.")}
FROM unnest(:orgs::text[], :request_ids::text[]) AS u(org_id, request_id)
JOIN requests r ON r.org_id = u.org_id AND r.request_id = u.request_id
LEFT JOIN executions e ON e.org_id = r.org_id AND e.id = r.execution_id
FOR KEY SHARE OF r""")  # noqa: S608 - our own columns
"""What a lock finds is confirmed by the synchronous standbys before it is answered, as the write of a lock is."""

INSERT_EXECUTIONS = Statement(f"""
{columns.EXECUTION.insert("executions", "executions")}
ON CONFLICT DO NOTHING RETURNING id""")

INSERT_INPUTS = Statement(columns.INPUT.insert("execution_inputs", "inputs"))

_SAME_NAMED = (
    "state", "last_seq", "steps_total", "steps_completed", "steps_failed", "steps_skipped", "steps_running",
    "steps_cancelled", "progress", "start_time", "end_time", "deadline_time", "result", "failure",
    "ending", "pause", "breakpoints", "bytes", "usage",
)  # fmt: skip
UPDATE_EXECUTIONS = Statement(f"""
UPDATE executions e SET {listed(f"{name} = u.{name}" for name in _SAME_NAMED)},
    deaths = CASE WHEN u.survived THEN 0 ELSE e.deaths END,
    incarnation = CASE WHEN NOT u.released THEN e.incarnation END,
    wake_time = CASE
        WHEN NOT u.released OR u.end_time IS NOT NULL THEN NULL
        -- What the owner gave up without having seen must not wait for a timer.
        WHEN e.mail > u.mail_seen THEN clock_timestamp()
        ELSE coalesce(u.wake_time, clock_timestamp()) END,
    held_back = CASE WHEN u.start_time IS NULL THEN e.held_back END,
    awaits = CASE WHEN u.released AND u.end_time IS NULL THEN u.awaits END,
    signals = CASE WHEN u.signals IS NULL THEN e.signals WHEN u.signals <> '[]' THEN u.signals END,
    edited_vars = coalesce(u.edited_vars, e.edited_vars)
FROM ({columns.CHANGE.select("changes")}) u
WHERE e.org_id = u.org_id AND e.id = u.id
    -- Not `=`: the index of incarnations must never be chosen, it finds all that a replica drives.
    AND e.incarnation IS NOT DISTINCT FROM u.incarnation AND e.epoch = u.epoch AND e.last_seq = u.base_seq
    AND (u.bound IS NULL OR e.mail <= u.bound)
RETURNING e.id""")  # noqa: S608 - our own columns

_STEP_KEY = ("execution_id", "path", "iteration")
_STEP_VALUES = tuple(name for name in columns.STEP.names if name not in (*_STEP_KEY, "org_id", "input", "shared"))
_UNREAD = "excluded.shared->'input' = 'true'"
# Whoever took the execution over has not read the input of a step, and leaves it as it is, kept apart or not.
UPSERT_STEPS = Statement(f"""
{columns.STEP.insert("steps AS s", "steps")}
ON CONFLICT ({", ".join(_STEP_KEY)}) DO UPDATE SET
    {listed(f"{name} = excluded.{name}" for name in _STEP_VALUES)},
    input = CASE WHEN {_UNREAD} THEN s.input ELSE excluded.input END,
    shared = CASE WHEN {_UNREAD}
        THEN nullif(jsonb_strip_nulls(excluded.shared || jsonb_build_object('input', s.shared->'input')), '{{}}')
        ELSE excluded.shared END
WHERE s.end_time IS NULL OR (s.state = 'COMPLETED' AND excluded.state = 'COMPENSATED')""")

INSERT_HISTORY = Statement(columns.HISTORY.insert("transitions", "history"))

INSERT_SHARED = Statement(f"""
{columns.SHARED.insert("shared_payloads", "shared")}
ON CONFLICT DO NOTHING""")

REMOVE_MESSAGES = Statement(f"""
DELETE FROM messages m USING ({columns.CONSUMED.select("consumed")}) u
WHERE m.org_id = u.org_id AND m.execution_id = u.execution_id AND m.id = u.id""")  # noqa: S608 - our own columns

INSERT_MESSAGES = Statement(f"""
{columns.MESSAGE.insert("messages", "letters")}
ON CONFLICT DO NOTHING""")

INSERT_TASKS = Statement(f"""
{columns.TASK.insert("tasks", "tasks")}
ON CONFLICT DO NOTHING""")

CHANGE_TASKS = Statement(f"""
UPDATE tasks t SET state = u.state, update_time = u.time, version = t.version + 1,
    end_time = CASE WHEN u.ends THEN u.time END,
    outcome = u.outcome,
    escalated = t.escalated OR NOT u.ends,
    assignees = CASE WHEN u.ends THEN t.assignees ELSE u.assignees END,
    groups = CASE WHEN u.ends THEN t.groups ELSE u.groups END,
    due_time = CASE WHEN u.ends THEN t.due_time ELSE u.due_time END,
    claimed_by = CASE WHEN u.ends THEN t.claimed_by END,
    claim_time = CASE WHEN u.ends THEN t.claim_time END
FROM ({columns.TASK_CHANGE.select("task_changes")}) u
WHERE t.org_id = u.org_id AND t.id = u.id AND t.end_time IS NULL""")  # noqa: S608 - our own columns

PARTS: Mapping[str, Statement] = {
    "consumed": REMOVE_MESSAGES,
    "letters": INSERT_MESSAGES,
    "tasks": INSERT_TASKS,
    "task_changes": CHANGE_TASKS,
}
"""What few transitions carry beside steps and events: the statement of each part, whose only parameter is its rows.

Such a statement touches no row that other executions' transitions touch, and its success is not asked. No two of them
touch a row at once.
"""

# The lock waits for a transaction of the lost connection that is still about to commit. It also makes the reading a
# write, which like any other is confirmed by the synchronous standbys, and what it read with it.
READ_CHANGED = Statement("""
SELECT e.id, e.incarnation, e.epoch, e.last_seq, t.body
FROM unnest(:orgs::text[], :execution_ids::uuid[], :last_seqs::int8[]) AS u(org_id, id, last_seq)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
LEFT JOIN transitions t ON t.org_id = e.org_id AND t.execution_id = e.id AND t.seq = u.last_seq
FOR SHARE OF e""")
READ_CREATED = Statement(f"""
SELECT {selected(EXECUTION_COLUMNS, "e.")}
FROM unnest(:orgs::text[], :execution_ids::uuid[]) AS u(org_id, id)
JOIN executions e ON e.org_id = u.org_id AND e.id = u.id
FOR KEY SHARE OF e""")  # noqa: S608 - our own columns


@cache
def single(*, creates: bool, shares: bool, parts: tuple[str, ...] = ()) -> Statement:
    """Return the statement that writes a batch at once, or divides by zero unless all of it comes true.

    `creates`: the batch has creations; `shares`: large payloads that are not known to be kept; `parts`: what of PARTS.
    """
    written = {"pooled": INSERT_SHARED.template} if shares else {}
    written |= {
        "kept": f"{UPSERT_STEPS.template} RETURNING 1",
        "told": INSERT_HISTORY.template,
        "moved": UPDATE_EXECUTIONS.template,
    }
    written |= {f"of_{name}": PARTS[name].template for name in parts}
    # Asked in this order, and so done in it: by all, request ids are locked before workflows, those before executions,
    # and those before their steps.
    conditions = ["(SELECT count(*) FROM moved) = :change_count", "(SELECT count(*) FROM kept) = :step_count"]
    if creates:
        written |= {
            "live": LIVE_WORKFLOWS.template,
            "taken": INSERT_REQUESTS.template,
            "made": INSERT_EXECUTIONS.template,
            "given": INSERT_INPUTS.template,
        }
        conditions = [
            "(SELECT count(*) FROM taken) = :request_count",
            "(SELECT count(*) FROM live WHERE NOT is_paused AND NOT is_held) = cardinality(:workflow_ids)",
            "(SELECT count(*) FROM made) = :execution_count",
            *conditions,
        ]
    expressions = ",\n".join(f"{name} AS (\n{part})" for name, part in written.items())
    demanded = "\n    AND ".join(conditions)
    return Statement(f"WITH {expressions}\nSELECT 1 / ({demanded})::int")


def named() -> dict[str, Statement]:
    """Return all statements by their names; of those for a whole batch the one without any part and that with all."""
    found = {name: value for name, value in globals().items() if isinstance(value, Statement)}
    found["SINGLE"] = single(creates=False, shares=False)
    found["SINGLE_WITH_ALL"] = single(creates=True, shares=True, parts=tuple(PARTS))
    return found


def rendered() -> str:
    """Return the text of `statements.sql`."""
    parts = [
        "-- What persistence/postgres/commit/statements.py sends to Postgres. Made by make generate, changed there.\n"
        "-- EXPLAIN (GENERIC_PLAN) takes each as it stands, from Postgres 16 on.\n"
    ]
    for name, statement in named().items():
        numbers = ", ".join(f"${number} {each}" for number, each in enumerate(statement.parameters, start=1))
        parts.append(f"-- {name}: {numbers}\n{statement.text};\n")
    return "\n".join(parts)
