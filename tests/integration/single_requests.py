"""Requests of which one thing is wrong, by method, and what is said of each: a reason, or the field."""

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flowkeep.definition import definition
from tests.integration.calls import (
    HUGE,
    NOBODYS,
)
from tests.integration.stage import step

W, E, T = {"workflow": "w"}, {"execution_id": NOBODYS}, {"task_id": NOBODYS}
B = {"bulk_id": NOBODYS}
WORKER = {"worker_id": "w", "capacity": 1, "handlers": [{"name": "mine"}]}
TIME_GONE = Timestamp(seconds=HUGE)
BEFORE_TIME = Timestamp(seconds=-62_135_596_801)
WIDE = "😀" * 128
DEFINITION = definition({"name": "w", "steps": [step("a")]})
ROWS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "CreateWorkflow": [
        ({"definition": DEFINITION}, "WORKFLOW_NAME_TAKEN"),
        ({"definition": definition({"name": NOBODYS, "steps": [step("a")]})}, "definition.name"),
        ({"definition": definition({"name": "n", "steps": [step("a", WIDE)]})}, "definition.steps[0].handler"),
        ({"definition": definition({"name": "n", "steps": [step("a")], "tags": [WIDE] * 32})}, "definition.tags"),
    ],
    "GetWorkflow": [
        ({"workflow": NOBODYS}, "WORKFLOW_NOT_FOUND"),
        ({"workflow": WIDE}, "WORKFLOW_NOT_FOUND"),
        ({"workflow": "%' OR ''='"}, "WORKFLOW_NOT_FOUND"),
        ({"workflow": "w", "revision": 2**31 - 1}, "REVISION_NOT_FOUND"),
    ],
    "ListWorkflows": [
        *(({"page_token": each}, "page_token") for each in ("no token", "é", "A" * 1024, "==")),
        ({"page_size": -1}, "page_size"),
        ({"tags": ["a\0"]}, "tags"),
    ],
    "UpdateWorkflow": [
        ({**W, "definition": DEFINITION, "etag": "old"}, "ETAG_MISMATCH"),
        ({"workflow": "absent", "definition": DEFINITION}, "WORKFLOW_NOT_FOUND"),
        ({"workflow": "other", "definition": DEFINITION}, "definition.name"),
    ],
    "DeleteWorkflow": [
        ({**W, "etag": "old"}, "ETAG_MISMATCH"),
        ({"workflow": "absent", "force": True}, "WORKFLOW_NOT_FOUND"),
    ],
    "PauseWorkflow": [
        ({**W, "reason": "x" * 1025}, "reason"),
        ({"workflow": "absent"}, "WORKFLOW_NOT_FOUND"),
    ],
    "ResumeWorkflow": [
        ({**W, "reason": "x" * 1025}, "reason"),
        ({"workflow": "absent"}, "WORKFLOW_NOT_FOUND"),
    ],
    "SetWorkflowBreakpoints": [
        ({**W, "breakpoints": [{"path": "absent"}]}, "breakpoints[0].path"),
        ({**W, "breakpoints": [{"path": "*", "condition": "params."}]}, "breakpoints[0].condition"),
        ({**W, "breakpoints": [{"path": "*"}] * 17}, "breakpoints"),
        ({**W, "breakpoints": [{"path": "*"}], "expire_time": {"seconds": 1}}, "expire_time"),
        ({**W, "executions": 1_001}, "executions"),
        ({"workflow": "absent"}, "WORKFLOW_NOT_FOUND"),
    ],
    "ApplyWorkflows": [
        ({"definitions": [DEFINITION, DEFINITION]}, "definitions[1].name"),
        ({"definitions": [DEFINITION] * 101}, "definitions"),
        ({"definitions": [definition({"name": "n", "steps": [step("a", WIDE)]})]}, "definitions[0].steps[0].handler"),
    ],
    "ListNotifications": [
        *(({"page_token": each}, "page_token") for each in ("no token", "é", "A" * 1024, "==")),
        ({"page_size": -1}, "page_size"),
    ],
    "MarkNotificationsRead": [
        ({}, "seqs"),
        ({"seqs": [1], "up_to_seq": 1}, "seqs"),
        ({"seqs": [1] * 201}, "seqs"),
        ({"seqs": [1, 0]}, "seqs[1]"),
        ({"up_to_seq": HUGE, "request_id": "used"}, "REQUEST_ID_REUSED"),
    ],
    "WatchNotifications": [({"after_seq": -1}, "after_seq"), ({"after_seq": HUGE}, "CURSOR_AHEAD")],
    "ListTasks": [
        *(({"page_token": each}, "page_token") for each in ("no token", "é", "A" * 1024, "==")),
        ({"filter": {"states": [0]}}, "filter.states"),
        ({"filter": {"execution_id": "x"}}, "filter.execution_id"),
    ],
    "WatchTasks": [({"filter": {"group": "a\0"}}, "filter.group")],
    "GetTask": [(T, "TASK_NOT_FOUND"), ({"task_id": NOBODYS.replace("-", "")}, "task_id")],
    "ClaimTask": [(T, "TASK_NOT_FOUND")],
    "ReleaseTask": [(T, "TASK_NOT_FOUND")],
    "CompleteTask": [({**T, "outcome": "yes"}, "TASK_NOT_FOUND"), ({**T, "comment": "a\0"}, "comment")],
    "DelegateTask": [({**T, "assignee": "bob"}, "TASK_NOT_FOUND"), (T, "assignee")],
    "CommentTask": [({**T, "text": "fine"}, "TASK_NOT_FOUND"), (T, "text")],
    "StartBulk": [
        ({"filter": W, "action": {"resume": {}}, "rate": 1_001}, "rate"),
        ({"filter": W, "action": {"retry": {"timeout": Duration(seconds=-1)}}}, "action.retry.timeout"),
        ({"filter": {**W, "states": ["STATE_FAILED"]}, "action": {"cancel": {}}}, "filter.states"),
        ({"action": {"cancel": {}}}, "filter"),
        ({"filter": W}, "action"),
        ({"filter": W, "action": {}}, "action.kind"),
        ({"filter": W, "action": {"cancel": {}}, "request_id": "used"}, "REQUEST_ID_REUSED"),
    ],
    "GetBulk": [(B, "BULK_NOT_FOUND"), ({"bulk_id": "x"}, "bulk_id")],
    "WatchBulk": [(B, "BULK_NOT_FOUND")],
    "StopBulk": [(B, "BULK_NOT_FOUND")],
    "ListBulks": [({"page_token": "no token"}, "page_token"), ({"states": [0]}, "states[0]")],
    "ListBulkResults": [
        (B, "BULK_NOT_FOUND"),
        ({**B, "page_token": "é"}, "page_token"),
        ({**B, "page_size": -1}, "page_size"),
    ],
    "ValidateWorkflow": [],  # it answers OK with violations, or with those of the wire
    "ListHandlers": [],  # its request has no fields
    "Execute": [
        ({"workflow": "absent"}, "WORKFLOW_NOT_FOUND"),
        ({**W, "revision": 9}, "REVISION_NOT_FOUND"),
        ({**W, "request_id": "used"}, "REQUEST_ID_REUSED"),
        ({**W, "labels": {"a\0": "b"}}, "labels"),
    ],
    "BatchExecute": [  # it answers OK with an outcome for each request
        ({"requests": [W] * 1_001}, "requests"),
    ],
    "GetExecution": [(E, "EXECUTION_NOT_FOUND"), ({"execution_id": NOBODYS.replace("-", "")}, "execution_id")],
    "ListExecutions": [
        ({"page_token": "no token"}, "page_token"),
        ({"page_size": -(2**31)}, "page_size"),
        *(
            ({"filter": where}, f"filter.{field}")
            for where, field in (
                ({"states": [1, 1]}, "states"),
                ({"workflow": "a\0"}, "workflow"),
                ({"tags": ["a\0"]}, "tags"),
                ({"labels": {"a\0": "b"}}, "labels"),
                ({"create_time": {"start_time": TIME_GONE}}, "create_time.start_time"),
                ({"create_time": {"end_time": BEFORE_TIME}}, "create_time.end_time"),
                ({"end_time": {"start_time": Timestamp(seconds=253_402_300_800)}}, "end_time.start_time"),
                ({"end_time": {"end_time": Timestamp(seconds=-HUGE)}}, "end_time.end_time"),
                ({"create_time": {"start_time": Timestamp(nanos=-1)}}, "create_time.start_time"),
                ({"create_time": {"start_time": Timestamp(nanos=2**31 - 1)}}, "create_time.start_time"),
                *(({"execution_id_prefix": each}, "execution_id_prefix") for each in ("0193000", "0193000g", "0" * 33)),
            )
        ),
    ],
    "ListSteps": [
        (E, "EXECUTION_NOT_FOUND"),
        ({**E, "page_token": "no token"}, "page_token"),
        ({**E, "states": [0]}, "states"),
        ({**E, "handler": "a\0"}, "handler"),
    ],
    "GetStep": [
        ({**E, "path": "a"}, "EXECUTION_NOT_FOUND"),
        ({**E, "path": ""}, "path"),
        ({**E, "path": "a\0"}, "path"),
        ({**E, "path": "a", "iteration": -1}, "iteration"),
    ],
    "CompareExecutions": [
        ({**E, "other_execution_id": E["execution_id"]}, "EXECUTION_NOT_FOUND"),
        (E, "other_execution_id"),
        ({**E, "other_execution_id": "one"}, "other_execution_id"),
    ],
    "ExplainQueue": [
        ({"workflow": NOBODYS}, "WORKFLOW_NOT_FOUND"),
        ({"workflow": ""}, "workflow"),
        ({"workflow": WIDE}, "WORKFLOW_NOT_FOUND"),
        ({"workflow": "w", "page_size": -1}, "page_size"),
    ],
    **{name: [(E, "EXECUTION_NOT_FOUND")] for name in ("ExplainExecution", "Cancel", "Pause", "Resume", "Terminate")},
    **{name: [(E, "EXECUTION_NOT_FOUND")] for name in ("Cancel", "Pause", "Resume", "Terminate")},
    "SetBreakpoints": [
        (E, "EXECUTION_NOT_FOUND"),
        ({**E, "breakpoints": [{"path": ""}]}, "breakpoints[0].path"),
        ({**E, "breakpoints": [{"path": "a"}] * 17}, "breakpoints"),
        ({**E, "breakpoints": [{"path": "a", "condition": "a" * 257}]}, "breakpoints[0].condition"),
    ],
    "EditStepInput": [
        ({**E, "path": "a", "input": {}}, "EXECUTION_NOT_FOUND"),
        ({**E, "path": "a"}, "input"),
        ({**E, "path": "", "input": {}}, "path"),
    ],
    "EditVariables": [
        ({**E, "vars": {"n": 1}}, "EXECUTION_NOT_FOUND"),
        (E, "vars"),
        ({**E, "vars": {}}, "vars"),
        ({**E, "vars": {"n": "a\0"}}, "vars.n"),
    ],
    "SignalExecution": [
        ({**E, "name": "a"}, "EXECUTION_NOT_FOUND"),
        ({"correlation": {"workflow": "absent", "correlation_id": "a"}, "name": "a"}, "EXECUTION_NOT_FOUND"),
        ({"name": "a"}, "target"),
        ({**E, "name": ""}, "name"),
        ({**E, "name": "a\0"}, "name"),
        ({"correlation": {"workflow": "a", "correlation_id": ""}, "name": "a"}, "correlation.correlation_id"),
        ({**E, "name": "a", "payload": {"x": "a" * (64 << 10)}}, "payload"),
    ],
    "SignalWithStart": [
        ({"start": {"workflow": "absent", "correlation_id": "a"}, "name": "a"}, "WORKFLOW_NOT_FOUND"),
        ({"name": "a"}, "start"),
        ({"start": {"workflow": "absent"}, "name": "a"}, "start.correlation_id"),
        ({"start": {"workflow": "a\0", "correlation_id": "a"}, "name": "a"}, "start.workflow"),
        ({"start": {"workflow": "a", "correlation_id": "a", "wait": True}, "name": "a"}, "start.wait"),
        ({"start": {"workflow": "a", "correlation_id": "a"}, "name": ""}, "name"),
        (
            {"start": {"workflow": "a", "correlation_id": "a"}, "name": "a", "payload": {"x": "a" * (64 << 10)}},
            "payload",
        ),
    ],
    "Retry": [
        (E, "EXECUTION_NOT_FOUND"),
        ({**E, "edit": {"path": "a"}}, "edit.input"),
        ({**E, "edit": {"path": "", "input": {}}}, "edit.path"),
        ({**E, "skip": {"path": "a\0"}}, "skip.path"),
        ({**E, "timeout": Duration(seconds=-1)}, "timeout"),
    ],
    "ForkExecution": [
        (E, "EXECUTION_NOT_FOUND"),
        ({**E, "validate_only": True}, "EXECUTION_NOT_FOUND"),
        ({**E, "revision": -1}, "revision"),
        ({**E, "request_id": "a" * 129}, "request_id"),
        ({**E, "step_path": "a\0"}, "step_path"),
        ({**E, "step_iteration": 1}, "step_iteration"),
        ({**E, "outputs": [{"path": ""}]}, "outputs[0].path"),
        ({**E, "step_path": "a", "outputs": [{"path": "b"}] * 2}, "outputs[1].path"),
    ],
    "TestStep": [
        ({"path": "a"}, "source"),
        ({"workflow": "absent"}, "path"),
        ({"workflow": "absent", "path": "a"}, "WORKFLOW_NOT_FOUND"),
        ({**E, "path": "a"}, "EXECUTION_NOT_FOUND"),
        ({**E, "path": "a", "at_seq": 1}, "EXECUTION_NOT_FOUND"),
        ({"workflow": "absent", "path": "a", "at_seq": 1}, "at_seq"),
        ({"workflow": "absent", "path": "a\0"}, "path"),
        ({"step": {"id": "a", "handler": "absent"}}, "step.handler"),
        ({"step": {"id": "a", "handler": "transform", "params": {"value": 1}}, "path": "b"}, "path"),
    ],
    "WatchExecution": [
        (E, "EXECUTION_NOT_FOUND"),
        ({**E, "snapshot": True}, "EXECUTION_NOT_FOUND"),
        ({**E, "snapshot": True, "after_seq": 1}, "after_seq"),
    ],
    "Work": [
        ({"heartbeat": {}}, "register"),
        ({"register": {**WORKER, "handlers": []}}, "register.handlers"),
        ({"register": {**WORKER, "handlers": [{"name": "call_api"}]}}, "HANDLER_EXISTS"),
        ({"register": {**WORKER, "name": "a\0"}}, "register.name"),
    ],
    "ListWorkers": [({"handler": "x" * 129}, "handler")],
}
