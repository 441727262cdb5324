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

_AT_ONCE = 32


class Answers(NamedTuple):
    """What came out on some probes, one row each, in nats."""

    log_new: Float[Tensor, " probe"]
    log_old: Float[Tensor, " probe"]
    new_is_top: Bool[Tensor, " probe"]
    """The new object's first token is the most probable of all tokens."""
    divergence: Float[Tensor, " probe"]
    """KL(p || p') of the next token, p without an edit."""

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
            PromptCache(subject, prompts[start : start + _AT_ONCE], [layer], final_only=True)
            for start in range(0, len(prompts), _AT_ONCE)
        ]

    @property
    def groups(self) -> list[str]:
        """The group of each probe."""
        return [probe.group for probe in self.probes]

    def ask_by(self, method: Method) -> Answers:
        """The answers under a method."""
        if method.reword is None:
            return self.ask(method.directions)
        prompts = [method.prompt(probe.record, probe.prompt) for probe in self.probes]
        return self._read(self._subject.log_probs([prompt.text for prompt in prompts]))

    @torch.no_grad()
    def ask(self, directions: Float[Tensor, "record d_model"] | None) -> Answers:
        """The answers when each probe's record's direction is added; None asks without an edit."""
        if directions is None:
            return self._read(self._unedited())
        final = self._unedited()
        for mine, cache, rows in self._by_cache():
            for start in range(0, len(mine), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                chosen = directions[[self.probes[at].record for at in mine[some]]]
                final[mine[some]] = cache.edited_log_probs(self._layer, rows[some], chosen)[:, -1]
        return self._read(final)

    def _unedited(self) -> Float[Tensor, "probe d_vocab"]:
        final = torch.empty(len(self.probes), self._subject.d_vocab, device=self._subject.device)
        for mine, cache, rows in self._by_cache():
            final[mine] = cache.log_probs[rows, -1]
        return final

    def _by_cache(self) -> Iterator[tuple[list[int], PromptCache, list[int]]]:
        """For each cache the probes that it serves, and their rows in it."""
        for number, cache in enumerate(self._caches):
            mine = [at for at, row in enumerate(self._row) if row // _AT_ONCE == number]
            yield mine, cache, [self._row[at] % _AT_ONCE for at in mine]

    def _read(self, final: Float[Tensor, "probe d_vocab"]) -> Answers:
        before = self._unedited()
        return Answers(
            log_new=final.gather(1, self._new[:, None])[:, 0],
            log_old=final.gather(1, self._old[:, None])[:, 0],
            new_is_top=final.argmax(-1) == self._new,
            divergence=(before.exp() * (before - final)).sum(-1),
        )


def token_of(subject: LanguageSubject, knowledge: Knowledge) -> Callable[[str], int]:
    """First token of an object, be it in the relation's range or not."""
    known = knowledge.first_tokens
    return lambda name: known[name] if name in known else subject.first_token(name)
