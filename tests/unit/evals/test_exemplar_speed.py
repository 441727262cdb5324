import pytest

from dragoman.evals.exemplar_speed import Peer, Speed, Timing, measure_speed, reached, render
from dragoman.tools.captioning.corpus import Corpus

SPEED = Speed([Timing(100, 1.0, 1.1), Timing(300, 3.0, 3.1)], n_padding=4, total=8.4)
MEMORY = [(64, 1.0, 1.5), (128, 1.0, 1.5)]
PEER = Peer(4096, [1.0, 2.0, 1.0], [2.0, 3.0, 2.5], [3.5, 7.0, 2.0])


def test_every_batch_is_run_bare_and_collected(make_tiny, tmp_path):
    subject = make_tiny()
    documents = tuple(f"The capital of France is Paris {number}." for number in range(40))
    passes = []
    hook = subject.blocks[0].register_forward_hook(lambda *args: passes.append(1))
    speed = measure_speed(
        subject, Corpus(id="x", description="texts", documents=documents), tmp_path
    )
    hook.remove()
    assert len(passes) >= 2 * len(speed.timings)
    assert sum(each.n_tokens for each in speed.timings) > 40 * 8
    assert speed.total >= sum(each.bare + each.collecting for each in speed.timings)
    assert 0 < speed.ratio < 1


def test_all_that_is_no_bare_pass_counts_against_collection():
    assert SPEED.ratio == pytest.approx(4.0 / 4.4)
    assert SPEED.overhead(0) == pytest.approx(0.1)
    assert SPEED.overhead(1) == pytest.approx(0.1 / 3)


def test_the_page_states_each_figure_beside_its_goal():
    page = render(SPEED, MEMORY, PEER)
    assert "400 tokens, 0.99% padding) | ≥ 0.85 | 0.909 |" in page
    assert page.count("≤ 1.0 GB | 0.50 GB |") == 2
    assert "(in memory) over ours" in page
    assert "median of 3 rounds | ≥ 3.0 | 3.5 |" in page
    assert "delphi" not in render(SPEED, MEMORY, None)


def test_the_goals_decide():
    assert reached(SPEED, MEMORY, PEER)
    assert not reached(SPEED._replace(total=10.0), MEMORY, PEER)
    assert not reached(SPEED, [(64, 1.0, 2.1)], PEER)
    assert not reached(SPEED, MEMORY, PEER._replace(saved=[2.0, 2.0, 2.0]))
