"""The handler `ask_model`: one question to a model, by the chat completions of OpenAI, until its answer is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.engine.chat.asking import Asking, Place
from service.engine.chat.conversation import Conversation
from service.engine.chat.endpoints import NoKeyError, completions_url
from service.engine.chat.models import Models
from service.engine.chat.offered import Offered
from service.engine.chat.params import ASKS, PARAMS, check, credentials
from service.engine.chat.reading import said
from service.engine.chat.schemas import FaultyAnswerError
from service.engine.egress.egress import Egress
from service.engine.egress.guard import Guard
from service.engine.egress.routes import RouteError
from service.engine.failure import NOT_CONFIGURED, SECRET_NOT_FOUND, SECRETS_UNAVAILABLE
from service.engine.handlers.http_line import route_of
from service.engine.handlers.model import Effect, Handler, HandlerError, StepContext
from service.engine.mcp.sessions import Sessions
from service.engine.secrets import SecretNotFoundError, SecretsUnavailableError

DESCRIPTION = """\
Asks a model by the chat completions of OpenAI, which local servers (vLLM, Ollama, llama.cpp) and most providers speak.

Gives {text, value, tool_calls, messages, finish_reason, id, model, asks, usage}: `text` is the answer; with
`output_schema` it is null, and `value` is the JSON that the answer stands for, which meets the schema. `usage` is
{input_tokens, cached_input_tokens, output_tokens, cost_micros, currency} of all `asks` together, as the server tells;
cost_micros, in millionths of the currency, is null where FLOWKEEP_MODELS has no price for the model. Tokens and cost
count for step and execution, those of answers that were refused, too.

Endpoints are the deployment's: its setting FLOWKEEP_MODELS gives each a name, a URL, a key and prices. Or a step gives
the `url`, which must be public unless FLOWKEEP_HTTP_ALLOW names it, its `api_key`, and `tls` and `proxy` as call_api
does. Redirects are not followed.

With `output_schema` the model is told what the answer must be; one that is not goes back to it with what is wrong, so
that it is asked up to `quality_attempts` times. With `stream`, the text is shown to watchers as it comes. A cancelled
step closes the connection, at which most servers stop. Idempotency-Key is sent, one for each ask and the same in each
attempt; few servers look at it, so that an attempt that is made again is paid for again. An answer has at most 1 MiB, a
stream 16 MiB, and the text of either 262,144 characters.

With `tools` the model may answer by `tool_calls`, [{id, name, arguments}] with arguments that meet their schemas, or it
is asked again; no value comes with them. Tools that have a `handler` make a loop of the step: answer[0].ask asks the
model, answer[0].calls[1].price runs the handler of a tool that it called, answer[1].ask goes on with the results, until
an answer calls none, or `max_rounds` are over, of which the last is without tools. Each is a step of its own, kept and
tried again by its own policy, so that none is made again after a crash; `timeout`, `retry_policy`, `delivery` and
`total_timeout` of the step are those of each question. The output is that of the last one; usage of all counts for the
execution. Where tools have none, steps of the workflow do what the model asks for, and the next one that asks goes on
with `continue_from`, or with the `messages` of this output and {role: tool, tool_call_id, content} for each call.

Fails with these codes; details hold `endpoint` or the `url` without secrets, the `model`, and what came:
OUTPUT_REJECTED: no answer met `output_schema`, or no calls the schemas of `tools`; details hold the `problems` and the
beginning of the last answer. Not retried.
ANSWER_TRUNCATED: the answer was cut off at the most tokens that it may have. Not retried.
CONTENT_FILTERED: a filter of the server refused the question, or cut the answer off. Not retried.
MODEL_REFUSED: the model refuses; the message is what it says. Not retried.
HTTP_STATUS_2XX to HTTP_STATUS_5XX: a status that is no success. Retried: 5XX, 408, 425 and 429, unless the quota of the
key is used up; a Retry-After of 429 and 503 is waited for, at most an hour.
SERVER_ERROR: the server told of an error in its answer. Retried unless it says that the request is wrong.
CONNECTION_FAILED: no connection, or none up to the end of the answer, or not within `timeout`. Retried.
INVALID_RESPONSE: what came is no chat completion. Not retried.
RESPONSE_TOO_LARGE: an answer over its limit. Not retried.
INVALID_OUTPUT: an answer that cannot be kept as the output of a step. Not retried.
ADDRESS_NOT_ALLOWED: the host of `url` has an address that workflows may not call. Nothing was sent. Not retried.
NOT_CONFIGURED: the deployment has no endpoint of this name, or one that cannot be used: its key cannot be read, or its
certificates or its proxy are not for this org. Not retried.
SERVER_NOT_FOUND, TOOL_NOT_FOUND, TOOL_CHANGED and others of mcp_tool: a tool with `mcp` cannot be described.
INVALID_PARAMS: params that are wrong once their templates are filled in. Not retried."""

_NAMES_TOLD = 50


def ask_model(egress: Egress | None = None, models: Models | None = None, sessions: Sessions | None = None) -> Handler:
    """Return the handler, which asks these models, and others by `egress`; by default none, and public addresses.

    It finds tools of MCP servers in these sessions, which somebody else closes; by default there are none.
    """
    caller = _Caller(egress or Egress(Guard()), models or Models({}), sessions or Sessions({}))
    return Handler(
        name="ask_model",
        description=DESCRIPTION,
        params_schema=PARAMS,
        effect=Effect.EXTERNAL,
        run=caller.run,
        check=check,
        credentials=credentials,
        close=caller.close,
    )


class _Caller:
    """Asks models, each attempt for itself."""

    def __init__(self, egress: Egress, models: Models, sessions: Sessions) -> None:
        self._egress = egress
        self._models = models
        self._sessions = sessions

    async def run(self, params: Mapping[str, Any], context: StepContext) -> Any:
        asking = Asking(await self._place(params, context.org), params, context)
        offered = await Offered.find(params, self._sessions, context)
        conversation, expected = Conversation(offered.told(params)), offered.read(params)
        while True:
            answer = await asking.answer(conversation.body())
            try:
                found = said(answer, expected)
                await offered.check(found.calls)
            except FaultyAnswerError as fault:
                if asking.asks == params.get("quality_attempts", ASKS):
                    raise asking.rejected(answer, fault.problems) from None
                conversation.ask_again(answer, fault.problems)
            else:
                return asking.output(answer, found, conversation.continued(answer) if "tools" in params else None)

    async def close(self) -> None:
        await self._egress.close()
        await self._models.egress.close()

    async def _place(self, params: Mapping[str, Any], org: str) -> Place:
        key = params.get("api_key", "")
        if "url" in params:
            route = route_of(self._egress, org, params)
            return Place(completions_url(params["url"]), params.get("headers", {}), key, self._egress, route=route)
        name = params["endpoint"]
        endpoint = self._models.endpoints.get(name)
        if endpoint is None:
            text = f"FLOWKEEP_MODELS has no endpoint {name!r}{_listed(sorted(self._models.endpoints))}"
            raise HandlerError(NOT_CONFIGURED, text, {"endpoint": name}, retryable=False)
        try:
            route = endpoint.server.route(self._models.egress.routes, org)
            key, headers = await self._models.account(org, endpoint, key)
        except SecretNotFoundError as error:
            text = f"FLOWKEEP_MODELS: {name}: {error}"
            raise HandlerError(SECRET_NOT_FOUND, text, {"endpoint": name}, retryable=False) from None
        except SecretsUnavailableError as error:
            raise HandlerError(SECRETS_UNAVAILABLE, f"FLOWKEEP_MODELS: {name}: {error}", {"endpoint": name}) from None
        except (NoKeyError, RouteError) as error:
            text = f"FLOWKEEP_MODELS: {name}: {error}"
            raise HandlerError(NOT_CONFIGURED, text, {"endpoint": name}, retryable=False) from None
        return Place(
            completions_url(endpoint.server.url),
            headers,
            key,
            self._models.egress,
            name,
            endpoint.price(params["model"]),
            endpoint.currency,
            route,
        )


def _listed(names: list[str]) -> str:
    """Return the end of a sentence that says which names there are."""
    if not names:
        return "; it names none"
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return f"; it names {', '.join(names[:_NAMES_TOLD])}{more}"
