"""Where the keys come from that tokens are verified with, and the settings with which nothing is served."""

import asyncio
import json

import jwt
import pytest

from service.config import ConfigError
from tests.integration.calls import call
from tests.integration.credentials import PUBLIC_PEM, SECRET, bearer, forged, token
from tests.tokens import KEY, OTHER_KEY


def jwks():
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
    return json.dumps({"keys": [{**public, "kid": "one", "alg": "RS256", "use": "sig"}]})


async def knows(served, text):
    answer = await call(served.channel, "/flowkeep.v1.WorkflowService/ListHandlers", b"", bearer(text))
    return answer.code == "OK"


async def test_keys_of_a_jwks_file(serve, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(jwks())
    served = await serve(jwt_jwks=str(path))
    assert await knows(served, token(headers={"kid": "one"}))
    assert await knows(served, token())  # the only key
    for kid in ("two", "", "../../etc/passwd", "' OR 1=1", "http://127.0.0.1/"):
        assert not await knows(served, token(headers={"kid": kid})), kid
    assert not await knows(served, token(key=OTHER_KEY, headers={"kid": "one"}))


async def test_keys_of_a_jwks_url_are_fetched_once(serve):
    fetches = []

    async def answer(reader, writer):
        fetches.append(await reader.readuntil(b"\r\n\r\n"))
        body = jwks().encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as web:
        port = web.sockets[0].getsockname()[1]
        served = await serve(jwt_jwks=f"http://127.0.0.1:{port}/jwks")
        calls = [token(headers={"kid": "one" if n % 2 else f"unknown {n}"}) for n in range(40)]
        known = await asyncio.gather(*(knows(served, text) for text in calls))
    assert known == [bool(n % 2) for n in range(40)]
    assert len(fetches) == 1


async def test_a_shared_secret(serve, tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    served = await serve(jwt_key_file=path, jwt_algorithm="HS256")
    assert await knows(served, token(key=SECRET, algorithm="HS256"))
    assert not await knows(served, token(key=SECRET + b"x", algorithm="HS256"))
    assert not await knows(served, token())
    assert not await knows(served, forged({"alg": "none"}))


async def test_settings_that_must_not_be_served_with(serve, tmp_path):
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(PUBLIC_PEM)
    for settings, said in (
        ({"listen": "0.0.0.0:0"}, "FLOWKEEP_JWT_KEY_FILE or FLOWKEEP_JWT_JWKS"),
        ({"listen": "[::]:0"}, "FLOWKEEP_JWT_KEY_FILE or FLOWKEEP_JWT_JWKS"),
        ({"listen": "127.0.0.1.example.com:0"}, "FLOWKEEP_JWT_KEY_FILE or FLOWKEEP_JWT_JWKS"),
        ({"listen": "0.0.0.0:0", "jwt_key_file": key_file}, "FLOWKEEP_TLS_TERMINATED_BY_PROXY=true"),
        ({"jwt_key_file": key_file, "jwt_jwks": "x"}, "not both"),
        ({"jwt_jwks": "x", "jwt_algorithm": "HS256"}, "FLOWKEEP_JWT_ALGORITHM=HS256"),
        ({"jwt_key_file": tmp_path / "absent"}, "FLOWKEEP_JWT_KEY_FILE"),
        ({"tls_cert_file": key_file}, "belong together"),
        ({"tls_client_ca_file": key_file}, "FLOWKEEP_TLS_CLIENT_CA_FILE needs"),
        ({"tls_cert_file": tmp_path / "absent", "tls_key_file": key_file}, "FLOWKEEP_TLS_CERT_FILE"),
        ({"tls_cert_file": key_file, "tls_key_file": key_file}, "FLOWKEEP_"),
        ({"listen": (await serve()).target}, "is another server using it?"),
        ({"listen": "127.0.0.1:7", "health_listen": "127.0.0.1:7"}, "must be another address than FLOWKEEP_LISTEN"),
        ({"health_listen": "everywhere"}, "FLOWKEEP_HEALTH_LISTEN=everywhere: must be host:port"),
    ):
        with pytest.raises(ConfigError) as error:
            await serve(**settings)
        assert said in str(error.value), settings
