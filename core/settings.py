"""The only reader of environment variables and of the person's configuration file."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from dragoman.core.errors import UserError

APP = "dragoman"


def config_file() -> Path:
    """Where the optional configuration file lies."""
    return platformdirs.user_config_path(APP) / "config.toml"


class Settings(BaseSettings):
    """Everything that can be configured, from `DRAGOMAN_*`, `OPENAI_*` and `config.toml`."""

    model_config = SettingsConfigDict(env_prefix="DRAGOMAN_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: platformdirs.user_data_path(APP))
    """The one folder with a person's data."""
    weights: Path | None = None
    """A folder that holds the weights already; without it they lie in `home`."""
    subject_dtype: Literal["float32", "bfloat16"] = "float32"
    """In what a language subject's weights are held; relations compute in float32 either way."""
    chat_model: str = "gpt-4.1-mini"
    """The model's name at the OpenAI-compatible endpoint."""
    chat_timeout_seconds: float = 300.0
    """Total time that one chat call may take, streaming included."""
    usd_per_million_prompt_tokens: float | None = None
    usd_per_million_completion_tokens: float | None = None
    chat_threads: int = 2
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, which wins over the file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        return init_settings, env_settings, toml

    @cached_property
    def weights_folder(self) -> Path:
        """Downloaded and converted weights."""
        return self.weights or self.home / "weights"

    @cached_property
    def cache_folder(self) -> Path:
        """What can be recomputed: sampled corpora, trained editors."""
        return self.home / "cache"

    @cached_property
    def artifacts_folder(self) -> Path:
        """Files left by experiments, one folder per experiment id."""
        return self.home / "artifacts"

    @cached_property
    def reports_folder(self) -> Path:
        """One folder per report."""
        return self.home / "reports"

    @cached_property
    def memory_folder(self) -> Path:
        """The vector index; rebuilt from the ledger at will."""
        return self.home / "memory"

    @cached_property
    def ledger_file(self) -> Path:
        """The append-only truth."""
        return self.home / "ledger.sqlite3"

    @property
    def endpoint_configured(self) -> bool:
        """Whether an OpenAI-compatible endpoint was named."""
        return self.openai_api_key is not None or self.openai_base_url is not None


def load_settings() -> Settings:
    """Read the settings; a malformed value is a `UserError` that names it."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(f"setting {name!r}: {first['msg']}") from None
    except ValueError as error:  # malformed TOML
        raise UserError(f"{config_file()}: {error}") from None
