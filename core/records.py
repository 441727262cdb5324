"""Frozen records of what was run and what was measured."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

JsonObject: TypeAlias = dict[str, JsonValue]


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_id(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


class Record(BaseModel):
    """Immutable, closed, replayable: all that is logged can be read back unchanged."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def content_id(self) -> str:
        """sha256 (hex) of the record's canonical JSON: equal records, equal ids."""
        return content_id(self.model_dump(mode="json"))


Unit: TypeAlias = Literal[
    "fraction",
    "probability",
    "correlation",
    "cosine",
    "logit",
    "nat",
    "bit",
    "ratio",
    "count",
]

SiteKind: TypeAlias = Literal[
    "resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_out", "mlp_act"
]


class Site(Record):
    """A place in a subject where activations are read or edited."""

    layer: Annotated[int, Field(ge=0)]
    kind: SiteKind = "resid_post"


class Measurement(Record):
    """One number with all that is needed to read it."""

    metric: str
    value: float
    unit: Unit
    baseline: float
    """The same metric, in the same unit, under the control named by `control`."""
    control: str
    """What the baseline is, in words: 'shuffled relation', 'no edit', 'chance'."""
    ci95: tuple[float, float]
    n: Annotated[int, Field(ge=0)]
    """Independent prompts, units or samples behind `value`."""
    n_failed: Annotated[int, Field(ge=0)] = 0
    """Asked for and not obtained: never dropped silently."""
    baseline_ci95: tuple[float, float] | None = None
    scope: str = ""
    """What the number is about when a result has several: 'layer 12', 'unit 12.77'."""

    @model_validator(mode="after")
    def _interval_holds_value(self) -> Self:
        low, high = self.ci95
        if not low - 1e-9 <= self.value <= high + 1e-9:
            raise ValueError(f"{self.metric}: {self.value} lies outside its interval {self.ci95}")
        return self


class Artifact(Record):
    """A file that a tool left behind; `path` is relative to the data folder."""

    name: str
    path: str
    media_type: str
    sha256: str


class Experiment(Record):
    """A tool call in full. Same experiment, same measurements."""

    tool: str
    arguments: JsonObject
    subject_digest: str
    seed: int
    chat: str = ""
    """The chat model's name, for the tools whose result depends on it."""
    code: str = ""
    """Digest of the tools' source and of the files that arguments name: neither changed code nor a
    changed corpus replays an old result."""

    @property
    def id(self) -> str:
        """Content id: sha256 of all that the result depends on."""
        return self.content_id()


class ToolSuccess(Record):
    """What a tool function returns: numbers, a typed body, and files."""

    summary: str
    """One sentence for agent and person; its numbers also stand in `measurements`."""
    measurements: tuple[Measurement, ...] = ()
    controls: tuple[Measurement, ...] = ()
    """Further baselines and checks, each a full measurement of its own."""
    output: JsonObject = {}
    artifacts: tuple[Artifact, ...] = ()
    caveats: tuple[str, ...] = ()
    """What limits the reading: too few samples, a skipped control."""


class ToolResult(Record):
    """A finished tool call as it is logged, printed by `--json` and shown to the agent."""

    status: Literal["ok", "error"]
    experiment_id: str
    experiment: Experiment
    summary: str
    measurements: tuple[Measurement, ...] = ()
    controls: tuple[Measurement, ...] = ()
    output: JsonObject = {}
    artifacts: tuple[Artifact, ...] = ()
    caveats: tuple[str, ...] = ()
    error: str | None = None
    """For `status == "error"`: one line that names the bad argument and the valid range."""

    @classmethod
    def success(cls, experiment: Experiment, success: ToolSuccess) -> Self:
        """The result of a call that worked."""
        return cls(
            status="ok",
            experiment_id=experiment.id,
            experiment=experiment,
            **{name: getattr(success, name) for name in ToolSuccess.model_fields},
        )

    @classmethod
    def failure(cls, experiment: Experiment, message: str) -> Self:
        """The result of a call that could not be done; kept, never dropped."""
        return cls(
            status="error",
            experiment_id=experiment.id,
            experiment=experiment,
            summary=message,
            error=message,
        )

    def measurement(self, metric: str, scope: str | None = None) -> Measurement | None:
        """The first measurement of `metric` (and `scope`, if given)."""
        for measurement in self.measurements:
            if measurement.metric == metric and scope in (None, measurement.scope):
                return measurement
        return None


SubjectKind: TypeAlias = Literal["language", "vision"]

Bearing: TypeAlias = Literal["supports", "refutes", "neutral"]


class Evidence(Record):
    """One measurement of one experiment, and which way it points for one hypothesis."""

    id: str
    experiment_id: str
    tool: str
    measurement: Measurement
    bearing: Bearing
    artifacts: tuple[Artifact, ...] = ()
    control_ids: tuple[str, ...] = ()


class SubjectIdentity(Record):
    """Which network was examined, to the bit."""

    name: str
    digest: str
    """sha256 over weights and configuration."""
    architecture: str
    n_layers: int
    d_model: int
    d_mlp: int
    """Neurons of a layer; where layers differ (vision subjects), of the widest one."""
    d_vocab: int
    """Tokens of a language subject, classes of a vision subject."""
    n_parameters: int


class ChatIdentity(Record):
    """Which chat model spoke, and through what."""

    kind: Literal["openai", "local", "scripted", "none"]
    model: str
    endpoint: str = ""
    """Host and port only; never a key."""
