"""What the editing eval keeps of a relation."""

from pydantic import Field

from dragoman.core.records import JsonObject, Measurement
from dragoman.evals.rows import EvalRow
from dragoman.tools.editing.sweep import SweepRow


class Row(EvalRow):
    """One relation, judged; or why it could not be."""

    relation: str
    content: str
    subject_digest: str
    seed: int
    code: str
    """Digest of the tools that counted."""
    refused: str = ""
    seconds: float = 0.0
    layer: int = -1
    strength: float = 0.0
    n_known: int = 0
    n_facts: int = 0
    n_entities: int = 0
    methods: JsonObject = Field(default_factory=dict)
    """Every method's figures (`measuring.table`)."""
    measurements: tuple[Measurement, ...] = ()
    lead: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Harmonic mean above the best baseline's, and the paired interval."""
    sweep: tuple[SweepRow, ...] = ()
    """Where a goal was missed."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What makes two rows the same piece of work."""
        return (self.relation, self.content, self.subject_digest, self.seed)

    @property
    def told(self) -> str:
        """What was done and what it took."""
        what = "swept" if self.sweep else "judged"
        return f"{self.relation}: {what}, {self.seconds:.0f} processor seconds in all"

    def figure(self, metric: str) -> Measurement | None:
        """The editor's measurement of that name, over everything."""
        return next(
            (one for one in self.measurements if (one.metric, one.scope) == (metric, "")), None
        )

    def of(self, method: str, metric: str) -> float | None:
        """A method's figure."""
        row = self.methods.get(method)
        value = row.get(metric) if isinstance(row, dict) else None
        return float(value) if isinstance(value, int | float) else None
