"""Secrets that steps name and nobody keeps.

Secrets, Provider      store.py: asks each provider in turn, per org
EnvironmentSecrets     environment.py: variables of the process
FolderSecrets          folder.py: files, as Kubernetes and Docker mount them
VaultSecrets           vault.py: HashiCorp Vault's key-value store, by HTTP
Hiding                 hiding.py: takes them out of what comes back
                       setting.py: those that settings of the deployment name
"""

from service.engine.secrets.environment import EnvironmentSecrets
from service.engine.secrets.folder import FolderSecrets
from service.engine.secrets.hiding import Hiding
from service.engine.secrets.store import Provider, SecretNotFoundError, Secrets, SecretsUnavailableError
from service.engine.secrets.vault import VaultSecrets

__all__ = [
    "EnvironmentSecrets",
    "FolderSecrets",
    "Hiding",
    "Provider",
    "SecretNotFoundError",
    "Secrets",
    "SecretsUnavailableError",
    "VaultSecrets",
]
