"""Asking an edited subject: log-probabilities of the new and the true object on many probes."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.methods import Method
from dragoman.tools.editing.probes import Probe
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.subjects.language import LanguageSubject

_AT_ONCE, _CACHED = 64, 32


class Answers(NamedTuple):
    """What came out on some probes, one row each, in nats."""

    log_new: Float[Tensor, " probe"]
    log_old: Float[Tensor, " probe"]
    new_is_top: Bool[Tensor, " probe"]
    """The new object's first token is the most probable of all tokens."""
    divergence: Float[Tensor, " probe"]
    """KL(p || p') of the next token, p without an edit."""

    @classmethod
    def blank(cls, n_probes: int, device: torch.device) -> "Answers":
        """Room for so many probes, to `put` answers into."""
        numbers = torch.full((3, n_probes), torch.nan, device=device)
        top = torch.zeros(n_probes, dtype=torch.bool, device=device)
        return cls(numbers[0], numbers[1], top, numbers[2])

    def put(self, probes: Sequence[int], answers: "Answers") -> None:
        """Write the answers to some of the probes."""
        at = list(probes)
        for mine, theirs in zip(self, answers, strict=True):
            mine[at] = theirs

    def rows(self, chosen: Sequence[int]) -> "Answers":
        """Some of the answers."""
        at = list(chosen)
        return Answers(*(each[at] for each in self))

    def changed(self) -> list[bool]:
        """Where the new object beats the true one."""
        return [bool(won) for won in self.log_new > self.log_old]

    def kept(self) -> list[bool]:
        """Where the true object beats the new one."""
        return [bool(won) for won in self.log_old > self.log_new]


class Judge:
    """Probes with what they share for every direction: their prompts' cached passes."""

    def __init__(
        self,
        subject: LanguageSubject,
        probes: Sequence[Probe],
        records: Sequence[EditRecord],
        token: Callable[[str], int],
        layer: int,
    ) -> None:
        self.probes = tuple(probes)
        self._subject, self._layer = subject, layer
        new = [token(records[probe.record].new_object) for probe in probes]
        self._new = torch.tensor(new, device=subject.device)
        self._old = torch.tensor(
            [token(probe.old_object) for probe in probes], device=subject.device
        )
        prompts = list(dict.fromkeys(probe.prompt for probe in probes))
        self._row = [prompts.index(probe.prompt) for probe in probes]
        # Tails differ by shape of prompt; caching some at a time keeps memory flat.
        self._caches = [
            PromptCache(subject, prompts[start : start + _CACHED], [layer], final_only=True)
            for start in range(0, len(prompts), _CACHED)
        ]

    @property
    def groups(self) -> list[str]:
        """The group of each probe."""
        return [probe.group for probe in self.probes]

    def ask_by(self, methods: Sequence[Method]) -> dict[str, Answers]:
        """The answers under each method; all directions share their passes."""
        added = [method for method in methods if method.reword is None]
        found = dict(
            zip(
                (method.name for method in added),
                self.ask_each([method.directions for method in added]),
                strict=True,
            )
        )
        return {
            method.name: found[method.name] if method.reword is None else self._reworded(method)
            for method in methods
        }

    def ask(self, directions: Float[Tensor, "record d_model"] | None) -> Answers:
        """The answers when each probe's record's direction is added; None asks without an edit."""
        return self.ask_each([directions])[0]

    @torch.no_grad()
    def ask_each(
        self, candidates: Sequence[Float[Tensor, "record d_model"] | None]
    ) -> list[Answers]:
        """The same for several candidates, which share their passes."""
        n_probes = len(self.probes)
        found = [Answers.blank(n_probes, self._subject.device) for _ in candidates]
        for mine, cache, rows in self._by_cache():
            before = cache.log_probs[rows, -1]
            edited = []
            for at, directions in enumerate(candidates):
                if directions is None:
                    found[at].put(mine, self._read(before, before, mine))
                else:
                    edited += [(at, place) for place in range(len(mine))]
            for start in range(0, len(edited), _AT_ONCE):
                some = edited[start : start + _AT_ONCE]
                places = [place for _, place in some]
                chosen = [candidates[at] for at, _ in some]
                added = [
                    each[self.probes[mine[place]].record]
                    for each, place in zip(chosen, places, strict=True)
                    if each is not None
                ]
                final = cache.edited_log_probs(
                    self._layer, [rows[place] for place in places], torch.stack(added)
                )[:, -1]
                said = self._read(final, before[places], [mine[place] for place in places])
                for row, (at, place) in enumerate(some):
                    found[at].put([mine[place]], said.rows([row]))
        return found

    def _reworded(self, method: Method) -> Answers:
        asked = [method.prompt(probe.record, probe.prompt).text for probe in self.probes]
        # Records that share a stand-in, or a new object, may come to one and the same text.
        different = list(dict.fromkeys(asked))
        log_probs = self._subject.log_probs(different)
        found = Answers.blank(len(self.probes), self._subject.device)
        for mine, cache, rows in self._by_cache():
            final = log_probs[[different.index(asked[at]) for at in mine]]
            found.put(mine, self._read(final, cache.log_probs[rows, -1], mine))
        return found

    def _by_cache(self) -> Iterator[tuple[list[int], PromptCache, list[int]]]:
        """For each cache the probes that it serves, and their rows in it."""
        for number, cache in enumerate(self._caches):
            mine = [at for at, row in enumerate(self._row) if row // _CACHED == number]
            yield mine, cache, [self._row[at] % _CACHED for at in mine]

    def _read(
        self,
        final: Float[Tensor, "row d_vocab"],
        before: Float[Tensor, "row d_vocab"],
        probes: Sequence[int],
    ) -> Answers:
        at = list(probes)
        return Answers(
            log_new=final.gather(1, self._new[at, None])[:, 0],
            log_old=final.gather(1, self._old[at, None])[:, 0],
            new_is_top=final.argmax(-1) == self._new[at],
            divergence=(before.exp() * (before - final)).sum(-1),
        )


def token_of(subject: LanguageSubject, knowledge: Knowledge) -> Callable[[str], int]:
    """First token of an object, be it in the relation's range or not."""
    known = knowledge.first_tokens
    return lambda name: known[name] if name in known else subject.first_token(name)
