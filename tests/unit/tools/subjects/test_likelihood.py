import pytest
import torch

from dragoman.tools.subjects.likelihood import log_probs_after

BEGINNING = "The capital of France is"
TEXTS = [" Paris.", "", " a dog is an animal. The capital of Japan is Tokyo.", " Paris."]


def test_a_beginning_read_once_changes_no_probability(any_tiny):
    found = log_probs_after(any_tiny, BEGINNING, TEXTS)
    n_given = len(any_tiny.token_ids(BEGINNING))
    for text, each in zip(TEXTS, found, strict=True):
        ids = any_tiny.token_ids(BEGINNING + text)
        with torch.no_grad():
            table = any_tiny.all_logits(any_tiny.batch([BEGINNING + text]))[0].log_softmax(-1)
        whole = [float(table[at - 1, ids[at]]) for at in range(n_given, len(ids))]
        assert each.tolist() == pytest.approx(whole, abs=1e-3)


def test_the_beginning_is_read_once_however_many_texts_there_are(tiny_subject, monkeypatch):
    read = []
    forward = type(tiny_subject).forward

    def counted(self, batch, *args, **options):
        read.append(tuple(batch.ids.shape))
        return forward(self, batch, *args, **options)

    monkeypatch.setattr(type(tiny_subject), "forward", counted)
    log_probs_after(tiny_subject, BEGINNING * 3, [f" {n}." for n in range(70)])
    n_shared = len(tiny_subject.token_ids(BEGINNING * 3)) - 1
    assert read[0] == (1, n_shared)
    assert sum(rows for rows, _ in read[1:]) == 70
    assert max(width for _, width in read[1:]) < n_shared


def test_no_texts_cost_nothing(tiny_subject):
    assert log_probs_after(tiny_subject, BEGINNING, []) == []
