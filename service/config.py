"""Settings of the server, from the environment: frozen, each with its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.addresses import is_loopback, is_unix, wrong_form
from service.engine.chat.endpoints import Endpoint, parse
from service.engine.durations import TEN_YEARS
from service.engine.egress.named import parse_tls
from service.forms import (
    DatabaseUrl,
    HttpProxies,
    HttpTls,
    McpServers,
    Models,
    Names,
    Roles,
    Seconds,
    Targets,
    Variables,
)

LARGEST_REQUEST = 4 * 1024 * 1024
LARGEST_ANSWER = 64 * 1024 * 1024
MOST_ON_EMBEDDED = 16
"""Processes that the embedded Postgres has connections for."""


class ConfigError(Exception):
    """The settings do not fit together; the text says which and what would be right."""


class Config(BaseSettings):
    """Every setting. `FLOWKEEP_LISTEN` in the environment sets `listen`, and so on."""

    model_config = SettingsConfigDict(env_prefix="FLOWKEEP_", frozen=True, extra="ignore", env_ignore_empty=True)

    listen: str = Field("127.0.0.1:50051", description="Address to serve on: host:port, port 0 for any, or unix:/path")
    health_listen: str = Field(
        "", description="Address that serves health alone, without TLS, for probes: host:port, or unix:/path"
    )
    processes: int = Field(
        1, ge=1, le=64, description="Server processes that share the address and the database; best one per core"
    )
    database_url: DatabaseUrl | None = Field(
        None, description="postgresql:// URL of your Postgres 15 to 18; absent: an embedded Postgres in data_dir"
    )
    data_dir: Path | None = Field(
        None,
        description="Folder of the embedded Postgres; default /var/lib/flowkeep for root, else ~/.local/share/flowkeep",
    )
    database_pool: int = Field(
        10, ge=2, le=100, description="Connections for reads and lists, besides three fixed ones"
    )
    migrate: bool = Field(True, description="Bring the schema up to date at the start; else refuse an older one")
    handlers: Names = Field(
        default_factory=list, description="Modules or files with your @handler functions: my.handlers,/srv/more.py"
    )
    handler_processes: int = Field(
        4, ge=1, le=64, description="Processes for handlers that are declared with process=True, started when needed"
    )
    http_allow: Targets = Field(
        default_factory=list,
        description="What workflows may call beside public addresses: 10.1.0.0/16,api.internal:8080,*.svc.local",
    )
    http_tls: HttpTls = Field(
        "", description='Certificates that steps may name, as JSON: {"internal": {"ca_file": "/etc/ca.pem"}}; see below'
    )
    http_proxies: HttpProxies | None = Field(
        None, description='Proxies that steps may name, as JSON: {"out": {"url": "http://proxy:3128"}}; see below'
    )
    mcp_servers: McpServers | None = Field(
        None,
        description=(
            'MCP servers with tools for workflows, by name, as JSON: {"files": {"command": "mcp-files"}}; see below'
        ),
    )
    models: Models | None = Field(
        None,
        description=(
            'Endpoints of models for workflows, by name, as JSON: {"local": {"url": "http://llm:8000/v1"}}; see below'
        ),
    )

    smtp_host: str = Field("", description="SMTP server that send_notification sends e-mail by; empty: none is sent")
    smtp_port: int | None = Field(
        None, ge=1, le=65535, description="Port of the SMTP server; default 587, with implicit TLS 465, without TLS 25"
    )
    smtp_tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="How the way to the SMTP server is encrypted; none is for loopback alone"
    )
    smtp_ca_file: Path | None = Field(
        None, description="CA (PEM) that its certificate must come from; absent: those that this system trusts"
    )
    smtp_username: str = Field("", description="User to log in at the SMTP server as; empty: without logging in")
    smtp_password: SecretStr | None = Field(None, description="Password of the user; may name a secret, see below")
    smtp_sender: str = Field("", description="Sender of all e-mail: it@example.org, or Flowkeep <it@example.org>")

    secrets_environment: Variables = Field(
        default_factory=dict,
        description='Variables with secrets of workflows, by org, as JSON: {"acme": {"crm_token": "CRM_TOKEN"}}',
    )
    secrets_dir: Path | None = Field(None, description="Folder with secrets of workflows, in files ORG/NAME")
    vault_url: str = Field("", description="Vault with secrets of workflows, such as https://vault.internal:8200")
    vault_token_file: Path | None = Field(None, description="File with the token for Vault, read at each call")
    vault_path: str = Field(
        "secret/data/flowkeep/{org}/{name}",
        description="Path of a secret in Vault's key-value store, version 2; the field value is the secret",
    )

    jwt_key_file: Path | None = Field(
        None, description="File with the key that tokens are verified with (PEM, or a secret for HS256)"
    )
    jwt_jwks: str = Field("", description="JWKS with the keys that tokens are verified with: a file or an http(s) URL")
    jwt_algorithm: Literal["RS256", "ES256", "EdDSA", "HS256"] = Field(
        "RS256", description="The one algorithm of tokens"
    )
    jwt_issuer: Names = Field(
        default_factory=list,
        description="Issuer that tokens must name, or several with commas between; empty: not checked",
    )
    jwt_audience: Names = Field(
        default_factory=list,
        description="Audience that tokens must name, or several of which one is enough; empty: not checked",
    )
    jwt_org_claim: str = Field("org", description="Claim with the org of the caller, such as tid or organization.0")
    jwt_subject_claim: str = Field("sub", description="Claim with the name of the caller, such as oid")
    jwt_permissions_claim: str = Field(
        "permissions", description="Claims with permissions or roles, such as scope,realm_access.roles"
    )
    jwt_groups_claim: str = Field(
        "groups", description="Claims with the groups of the caller, whom tasks and notifications may be for"
    )
    jwt_roles: Roles = Field(
        default_factory=dict,
        description='Permissions of roles that tokens name, * for all, as JSON: {"operator": ["executions.read"]}',
    )

    tls_cert_file: Path | None = Field(None, description="Certificate chain (PEM) to serve TLS with")
    tls_key_file: Path | None = Field(None, description="Private key (PEM) of the certificate")
    tls_client_ca_file: Path | None = Field(
        None, description="CA (PEM) that client certificates must come from; absent: none asked for"
    )
    tls_terminated_by_proxy: bool = Field(
        False, description="A proxy in front terminates TLS; without either, tokens are taken on this machine alone"
    )

    execution_timeout: Seconds = Field(
        3600.0, gt=0, le=TEN_YEARS, description="Timeout of executions whose workflow gives none"
    )
    step_timeout: Seconds = Field(300.0, gt=0, le=TEN_YEARS, description="Timeout of attempts whose step gives none")
    max_running: int = Field(
        2_000,
        ge=1,
        le=1_000_000,
        description="Executions that this process drives at a time, nine tenths of one org; others wait in the table",
    )
    max_execution_bytes: int = Field(
        67_108_864,
        ge=1_048_576,
        le=1_073_741_824,
        description="Bytes that one execution may write, mostly payloads; a step that does not fit fails",
    )
    park_after: Seconds = Field(
        10.0, ge=0, le=TEN_YEARS, description="Wait from which on an execution is put down until its timer"
    )
    lease_ttl: Seconds = Field(
        10.0, ge=0.5, le=3600, description="How long a process may be silent before others take its executions"
    )
    claim_interval: Seconds = Field(
        1.0, ge=0.05, le=3600, description="How often a process looks for executions to take without being told of any"
    )
    probation: Seconds = Field(
        10.0,
        gt=0,
        le=TEN_YEARS,
        description="How long an execution whose servers died must run before their deaths count no more against it",
    )
    worker_heartbeat_timeout: Seconds = Field(
        30.0,
        ge=0.5,
        le=3600,
        description="How long a worker may be silent before its attempts are lost and others get the next ones",
    )
    watch_poll: Seconds = Field(
        2.0, gt=0, le=TEN_YEARS, description="How often a watcher looks at the table without being woken"
    )
    watch_bookmark: Seconds = Field(
        10.0, gt=0, le=TEN_YEARS, description="How long a watch stream may be silent before it sends a bookmark"
    )
    watch_patience: Seconds = Field(
        30.0, gt=0, le=TEN_YEARS, description="How long a watcher may leave its stream unread before it is ended"
    )
    max_streams: int = Field(
        1_500,
        ge=1,
        le=1_000_000,
        description="Streams open at a time, of watchers and workers, nine tenths of one org at most; more answer"
        " RESOURCE_EXHAUSTED",
    )
    max_streams_per_org: int = Field(
        1_200,
        ge=1,
        le=1_000_000,
        description="Streams that one org has open at a time, of watchers and workers, nine tenths of one identity at"
        " most",
    )
    wait_limit: Seconds = Field(
        300.0, gt=0, le=TEN_YEARS, description="How long Execute with wait takes when the caller gave no deadline"
    )
    max_concurrent_rpcs: int = Field(
        2_000,
        ge=1,
        le=1_000_000,
        description="Calls served at a time, nine tenths of one org at most; more answer RESOURCE_EXHAUSTED",
    )
    stop_grace: Seconds = Field(
        5.0, ge=0, le=TEN_YEARS, description="How long calls in flight may take when the server stops"
    )
    cancel_grace: Seconds = Field(
        5.0, ge=0, le=TEN_YEARS, description="How long an attempt that was told to stop may take to end"
    )
    page_token_secret: SecretStr | None = Field(
        None,
        description="Secret that page tokens are signed with, equal on all replicas; default: one kept in the database",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged; with debug each call and execution, else those that failed"
    )
    log_format: Literal["json", "text"] = Field("json", description="Form of the log on standard error")

    @property
    def listeners(self) -> list[tuple[str, str]]:
        """The settings that name an address to listen on, and the addresses."""
        return [("FLOWKEEP_LISTEN", self.listen)] + (
            [("FLOWKEEP_HEALTH_LISTEN", self.health_listen)] if self.health_listen else []
        )

    @property
    def is_embedded(self) -> bool:
        """Whether the server brings its own Postgres."""
        return self.database_url is None

    @property
    def has_identity_provider(self) -> bool:
        """Whether callers are known by tokens."""
        return bool(self.jwt_key_file or self.jwt_jwks)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.listen)

    @property
    def is_encrypted(self) -> bool:
        """Whether calls from other machines come encrypted, as far as the settings say."""
        return self.tls_cert_file is not None or self.tls_terminated_by_proxy

    @property
    def key_files(self) -> list[tuple[str, Path, bool]]:
        """Files on which it hangs who calls: what for, where, and whether they are secret."""
        named = (
            ("identity", self.jwt_key_file, self.jwt_algorithm == "HS256"),
            ("identity", Path(self.jwt_jwks) if self.jwt_jwks else None, False),
            ("tls", self.tls_cert_file, False),
            ("tls", self.tls_key_file, True),
            ("tls", self.tls_client_ca_file, False),
            ("vault", self.vault_token_file, True),
            *(("models", endpoint.key_file, True) for endpoint in self.endpoints.values()),
            *(("http tls", each.key_file, True) for each in parse_tls(self.http_tls).values()),
        )
        return [(subject, path, is_secret) for subject, path, is_secret in named if path is not None]

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """Endpoints of models, by name."""
        return {} if self.models is None else parse(self.models.get_secret_value())

    @property
    def is_for_development(self) -> bool:
        """Whether all callers are the developer at this machine."""
        return self.is_loopback and not (self.has_identity_provider or self.tls_terminated_by_proxy)

    def private(self) -> Config:
        """Return the settings for a server that only its own process talks to: without tokens and TLS."""
        off = {
            "processes": 1,
            "health_listen": "",
            "jwt_key_file": None,
            "jwt_jwks": "",
            "tls_cert_file": None,
            "tls_key_file": None,
            "tls_terminated_by_proxy": False,
        }
        return self.model_copy(update={**off, "tls_client_ca_file": None})

    def check(self) -> None:
        """Raise ConfigError for settings that must not be served with."""
        for setting, address in self.listeners:
            if wrong := wrong_form(address):
                raise ConfigError(f"{setting}={address}: {wrong}")
            if self.processes > 1 and is_unix(address):
                raise ConfigError(
                    f"{setting}={address}: a unix socket belongs to one process; set FLOWKEEP_PROCESSES=1, or "
                    "listen on host:port"
                )
        if self.health_listen == self.listen and not self.listen.endswith(":0"):
            raise ConfigError(f"FLOWKEEP_HEALTH_LISTEN={self.listen}: must be another address than FLOWKEEP_LISTEN")
        if self.processes > MOST_ON_EMBEDDED and self.is_embedded:
            raise ConfigError(
                f"FLOWKEEP_PROCESSES={self.processes}: the embedded Postgres has connections for {MOST_ON_EMBEDDED}; "
                "set FLOWKEEP_DATABASE_URL"
            )
        if not self.has_identity_provider and not self.is_loopback:
            raise ConfigError(
                f"FLOWKEEP_LISTEN={self.listen} can be reached from other machines, and nothing says who callers are: "
                "set FLOWKEEP_JWT_KEY_FILE or FLOWKEEP_JWT_JWKS, or listen on 127.0.0.1"
            )
        if self.has_identity_provider and not (self.is_loopback or self.is_encrypted):
            raise ConfigError(
                f"FLOWKEEP_LISTEN={self.listen} can be reached from other machines, and tokens would travel "
                "unencrypted: set FLOWKEEP_TLS_CERT_FILE and FLOWKEEP_TLS_KEY_FILE, or, where a proxy in front "
                "terminates TLS, FLOWKEEP_TLS_TERMINATED_BY_PROXY=true"
            )
        if self.jwt_key_file and self.jwt_jwks:
            raise ConfigError("set one of FLOWKEEP_JWT_KEY_FILE and FLOWKEEP_JWT_JWKS, not both")
        if self.jwt_jwks and self.jwt_algorithm == "HS256":
            raise ConfigError("FLOWKEEP_JWT_ALGORITHM=HS256 needs FLOWKEEP_JWT_KEY_FILE: a JWKS holds public keys")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ConfigError("FLOWKEEP_TLS_CERT_FILE and FLOWKEEP_TLS_KEY_FILE belong together: set both or none")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ConfigError("FLOWKEEP_TLS_CLIENT_CA_FILE needs FLOWKEEP_TLS_CERT_FILE and FLOWKEEP_TLS_KEY_FILE")
