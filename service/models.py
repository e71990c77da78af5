"""The models of the settings, judged before any is asked."""

from __future__ import annotations

from service.config import Config, ConfigError
from service.engine.chat.endpoints import NoKeyError
from service.engine.chat.models import Models
from service.engine.secrets import Secrets


def models_of(config: Config, secrets: Secrets | None = None) -> Models:
    """Return the models that workflows may ask by name. Raises ConfigError for a key that cannot be had.

    Keys and headers may name `secrets`.
    """
    for name, endpoint in config.endpoints.items():
        try:
            endpoint.read_key()
        except NoKeyError as error:
            raise ConfigError(f"FLOWKEEP_MODELS: {name}.{error}") from None
    return Models(config.endpoints, secrets)
