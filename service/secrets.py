"""Where the secrets of workflows come from, judged before any is looked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pydantic import SecretStr

from service.config import Config, ConfigError
from service.engine.egress.named import parse_proxies
from service.engine.expressions.secret import NAME
from service.engine.mcp.servers import parse as parse_servers
from service.engine.mcp.servers import texts_of
from service.engine.secrets import EnvironmentSecrets, FolderSecrets, Provider, Secrets, VaultSecrets
from service.engine.secrets.setting import names_in


def secrets_of(config: Config) -> Secrets:
    """Return the secrets that the settings lead to. Raises ConfigError, which names the setting."""
    providers: list[Provider] = []
    if config.secrets_environment:
        _check_names(config.secrets_environment)
        providers.append(EnvironmentSecrets(config.secrets_environment))
    if config.secrets_dir is not None:
        if not config.secrets_dir.is_dir():
            raise ConfigError(f"FLOWKEEP_SECRETS_DIR={config.secrets_dir}: there is no such folder")
        providers.append(FolderSecrets(config.secrets_dir))
    if (vault := _vault(config)) is not None:
        providers.append(vault)
    _check_settings(config, has_providers=bool(providers))
    return Secrets(providers)


def _check_settings(config: Config, *, has_providers: bool) -> None:
    """Raise ConfigError for a setting that names a secret otherwise than it can be found."""
    for name, texts in _settings(config):
        try:
            names = names_in(texts)
        except ValueError as error:
            raise ConfigError(f"FLOWKEEP_{name}: {error}") from None
        if names and not has_providers:
            raise ConfigError(
                f"FLOWKEEP_{name} names a secret, and there is nowhere to look for it: set FLOWKEEP_SECRETS_DIR, "
                "FLOWKEEP_SECRETS_ENVIRONMENT or FLOWKEEP_VAULT_URL"
            )


def _settings(config: Config) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the settings that may name secrets, each with the texts in which they can."""
    yield "SMTP_USERNAME", [config.smtp_username]
    yield "SMTP_PASSWORD", [_text(config.smtp_password)]
    for proxy in parse_proxies(_text(config.http_proxies)).values():
        yield "HTTP_PROXIES", [proxy.username, proxy.password]
    if config.mcp_servers is not None:
        for server in parse_servers(_text(config.mcp_servers)).values():
            yield "MCP_SERVERS", texts_of(server)
    for endpoint in config.endpoints.values():
        yield "MODELS", [endpoint.key, *texts_of(endpoint.server)]


def _text(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def _check_names(variables: Mapping[str, Mapping[str, str]]) -> None:
    for name in (name for each in variables.values() for name in each):
        if not re.fullmatch(NAME, name):
            raise ConfigError(
                f"FLOWKEEP_SECRETS_ENVIRONMENT: no workflow can name the secret {name!r}: a name has at most 128 "
                "letters, digits, _ . and -, and begins with none of the last two"
            )


def _vault(config: Config) -> VaultSecrets | None:
    if bool(config.vault_url) != bool(config.vault_token_file):
        raise ConfigError("FLOWKEEP_VAULT_URL and FLOWKEEP_VAULT_TOKEN_FILE belong together: set both or none")
    if not config.vault_url or config.vault_token_file is None:
        return None
    if not config.vault_url.startswith(("http://", "https://")):
        raise ConfigError(f"FLOWKEEP_VAULT_URL={config.vault_url}: must begin with https:// or http://")
    if not {"{org}", "{name}"} <= set(config.vault_path.split("/")):
        raise ConfigError(
            f"FLOWKEEP_VAULT_PATH={config.vault_path}: must hold {{org}}, so that no org reads another's secrets, "
            "and {name}, each between slashes"
        )
    try:
        config.vault_token_file.read_bytes()
    except OSError as error:
        raise ConfigError(f"FLOWKEEP_VAULT_TOKEN_FILE={config.vault_token_file}: {error.strerror}") from None
    try:
        return VaultSecrets(config.vault_url, config.vault_token_file, config.vault_path)
    except OSError as error:
        raise ConfigError(f"SSL_CERT_FILE: the CAs for FLOWKEEP_VAULT_URL cannot be read: {error.strerror}") from None
