"""The server as such: where it listens, how its health is told, and what it refuses to start with."""

import asyncio
import shutil
import socket
import tempfile
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import flowkeep
from flowkeep.requests import execute_request
from flowkeep.v1 import execution_service_pb2 as pb
from flowkeep.v1.execution_pb2 import EXECUTION_VIEW_FULL
from service.addresses import socket_address
from service.api import steps
from service.config import ConfigError
from service.listening import reserved
from service.server import SERVICES
from tests.folders import new_folder
from tests.integration.stage import made, refusal, step
from tests.patience import PATIENCE

Health = health_pb2.HealthCheckResponse


async def test_health_is_told_of_the_server_and_of_each_service(served):
    health = health_pb2_grpc.HealthStub(served.channel)
    for service in ("", *SERVICES):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == Health.SERVING
    error = await refusal(health.Check(health_pb2.HealthCheckRequest(service="flowkeep.v1.Other")))
    assert error.code is grpc.StatusCode.NOT_FOUND


async def test_health_turns_before_the_server_goes(serve, stage):
    served = await serve(stop_grace=2 * PATIENCE)
    execution = await served.client.execute(await made(served.client, step("a", "gate")))
    await stage.called("a")
    waiting = served.executions.Execute(pb.ExecuteRequest(workflow=execution.workflow_id, wait=True))
    health = health_pb2_grpc.HealthStub(served.channel)
    states = aiter(health.Watch(health_pb2.HealthCheckRequest()))
    assert (await anext(states)).status == Health.SERVING

    stopping = asyncio.create_task(served.stop())
    async with asyncio.timeout(PATIENCE):  # nobody is waited for, although watching health has no end
        assert (await anext(states)).status == Health.NOT_SERVING
        assert (await refusal(anext(states))).code is grpc.StatusCode.UNAVAILABLE
        assert (await refusal(waiting)).reason == "SHUTTING_DOWN"
        await stopping


async def test_a_unix_socket_serves_as_well(serve):
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        served = await serve(listen=f"unix:{folder}/socket")
        assert served.target == f"unix:{folder}/socket"
        with pytest.raises(ConfigError, match="another server is using it"):
            await serve(listen=f"unix:{folder}/socket")
        assert await served.client.run(await made(served.client, step("a", "transform", value=1))) == 1
        await served.stop()
    finally:
        shutil.rmtree(folder)


async def test_two_servers_do_not_share_a_port(serve):
    """LIBRARIES G3: by default the second one would take half of the calls."""
    served = await serve()
    with pytest.raises(ConfigError, match="cannot listen"):
        await serve(listen=served.target)
    assert await served.client.list_handlers()


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
async def test_a_name_is_served_on_all_of_its_addresses_or_not_at_all(serve, taken):
    """gRPC by itself is content with the addresses that are left."""
    with socket.create_server((taken, 0), family=socket.AF_INET6 if ":" in taken else socket.AF_INET) as other:
        port = other.getsockname()[1]
        written = f"[{taken}]:{port}" if ":" in taken else f"{taken}:{port}"
        with pytest.raises(ConfigError) as refused:
            await serve(listen=f"localhost:{port}")
    assert f"FLOWKEEP_LISTEN=localhost:{port}: cannot listen there, {written};" in str(refused.value)
    served = await serve(listen="localhost:0")
    port = served.target.removeprefix("localhost:")
    for target in (f"127.0.0.1:{port}", f"[::1]:{port}"):
        async with flowkeep.Client(target) as client:
            assert await client.list_handlers()


EVERY = "0.0.0.0"  # noqa: S104 - for as long as the test, and for callers with a token


@pytest.mark.parametrize(("first", "second"), [(EVERY, "[::]"), ("[::]", "127.0.0.1"), ("127.0.0.1", EVERY)])
async def test_every_address_holds_its_port_against_all_and_the_other_way_round(serve, tmp_path, first, second):
    keys = {"jwt_key_file": tmp_path / "key", "jwt_algorithm": "HS256", "tls_terminated_by_proxy": True}
    (tmp_path / "key").write_text("k" * 32)
    port = (await serve(listen=f"{first}:0", **keys)).target.rpartition(":")[2]
    with pytest.raises(ConfigError, match="is another server using it"):
        await serve(listen=f"{second}:{port}", **keys)


async def test_a_server_that_lets_others_share_its_port_is_another_one_all_the_same(serve):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        with pytest.raises(ConfigError, match="is another server using it"):
            await serve(listen=f"127.0.0.1:{other.getsockname()[1]}")
        with (
            pytest.raises(ConfigError, match="is another server using it"),
            reserved([("FLOWKEEP_LISTEN", f"127.0.0.1:{other.getsockname()[1]}")]),
        ):
            pass


@pytest.mark.parametrize("name", ["with space", "ü", "50%", "a%41"])
async def test_a_unix_socket_may_have_any_name(serve, name):
    with new_folder() as folder:
        served = await serve(listen=socket_address(f"{folder}/{name}"))
        assert (folder / name).is_socket()
        assert await served.client.list_handlers()
        await served.stop()


async def test_a_unix_socket_that_cannot_be_is_refused(serve):
    with new_folder() as folder:
        (folder / "file").touch()
        for listen, complaint in {
            "unix:": "FLOWKEEP_LISTEN=unix:: names no socket: it must be unix:/path",
            "unix:///": "names no socket",
            f"unix:{folder}/{'x' * 100}": "a unix socket takes 103",
            f"unix:{folder}/absent/socket": f"{folder}/absent is no folder",
            f"unix:{folder}/file": "something that is no socket",
        }.items():
            with pytest.raises(ConfigError) as refused:
                await serve(listen=listen)
            assert complaint in str(refused.value)


async def test_a_server_that_has_stopped_can_be_started_again_on_its_port(serve):
    first = await serve()
    await first.stop()
    second = await serve(listen=first.target)
    assert await second.client.list_handlers()
    assert await first.client.list_handlers()


async def test_a_call_that_went_well_is_told_to_those_who_debug_and_a_refused_one_to_all(served, said):
    await served.client.list_handlers()
    with pytest.raises(flowkeep.NotFoundError):
        await served.client.get_workflow("missing")
    told = [(entry["level"], entry["method"].rpartition("/")[2], entry["code"]) for entry in said("call")]
    assert told == [("debug", "ListHandlers", "OK"), ("info", "GetWorkflow", "NOT_FOUND")]


async def test_an_unknown_method_is_unimplemented(served):
    call = served.channel.unary_unary("/flowkeep.v1.ExecutionService/Explode")
    error = await refusal(call(b""))
    assert error.code is grpc.StatusCode.UNIMPLEMENTED


async def test_an_execution_larger_than_4_mib_can_be_read(served):
    copies = (step(f"s{n}", "transform", value="${input.x}", assign={"v": "result"}) for n in range(12))
    name = await made(served.client, *copies, output="small")
    execution = await served.client.execute(name, {"x": "x" * 250_000})
    await served.client.result(execution.execution_id)

    options = (("grpc.max_receive_message_length", -1),)
    async with flowkeep.Client(served.target, options=options) as client:
        found = await client.get_execution(execution.execution_id)
        (snapshot, _) = [each async for each in client.watch_responses(execution.execution_id, snapshot=True)]
    assert found.ByteSize() > 4 << 20
    assert all(len(flowkeep.from_value(each.output)) == 250_000 for each in found.steps)
    small = snapshot.snapshot.execution
    assert small.ByteSize() < 4 << 20
    assert_cut(small)


def assert_cut(execution):
    """The last of its steps, all of which had outputs, are without."""
    omitted = [each.payloads_omitted for each in execution.steps]
    assert omitted == [not each.HasField("output") for each in execution.steps]
    assert set(omitted) == {False, True}
    assert omitted == sorted(omitted)
    assert not any(each.HasField("failure") for each in execution.steps)


async def test_others_have_their_turn_while_a_large_execution_is_made_ready(served, monkeypatch):
    """FAULTS P9: a lease is to be renewed meanwhile."""
    copies = (step(f"s{n}", "transform", value="${input.x}", assign={"v": "result"}) for n in range(12))
    name = await made(served.client, *copies, output="small")
    execution = await served.client.execute(name, {"x": "x" * 250_000}, wait=True)
    turns, seen = 0, []

    async def take_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def noted(make):
        def note(value):
            seen.append(turns)
            return make(value)

        return note

    others = asyncio.create_task(take_turns())
    with monkeypatch.context() as patched:
        for name in ("struct_bytes", "value_bytes"):
            patched.setattr(steps, name, noted(getattr(steps, name)))
        await served.client.get_execution(execution.execution_id)
    others.cancel()
    assert len(seen) >= 2 * 12, "what each step has been given, and its output"
    assert len(set(seen)) == len(seen)


async def test_an_execution_larger_than_4_mib_ends_well_for_who_waits_for_it(served):
    """EX4: a caller with the usual limits must not take an answer that is too large for a refusal."""
    copies = (step(f"s{n}", "transform", value="${input.x}") for n in range(20))
    name = await made(served.client, *copies, output="small")
    request = execute_request(name, {"x": "x" * 250_000}, wait=True, view=EXECUTION_VIEW_FULL)
    answer = await served.executions.Execute(request)
    assert answer.execution.state == flowkeep.Execution.STATE_COMPLETED
    assert answer.ByteSize() < 4 << 20
    assert_cut(answer.execution)
