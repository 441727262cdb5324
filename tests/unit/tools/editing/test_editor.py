"""What the editor reads, and how its directions are added."""

import torch

from dragoman.core.records import Site
from dragoman.tools.editing.editor import edit_at_entity, read_attributes, read_records
from dragoman.tools.editing.editors.base import READ
from dragoman.tools.editing.records import EditRecord, ask, state
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import LanguageSubject


def test_the_attribute_is_the_mean_over_its_tokens_in_context(any_tiny: LanguageSubject) -> None:
    contexts = [
        state("The capital of {} is", "France", "Tokyo dog"),
        state("{} is", "A", "Paris"),
    ]
    vectors = read_attributes(any_tiny, contexts, [0, 1])
    for row, context in enumerate(contexts):
        batch = any_tiny.batch([context.text])
        with torch.no_grad():
            resid = any_tiny.activations(batch, [Site(layer=1)])[Site(layer=1)][0]
        # The object ends the sentence, so its tokens are the last ones.
        n_before = len(any_tiny.token_ids(context.text[: context.start - 1]))
        torch.testing.assert_close(vectors[1][row], resid[n_before:].mean(0), atol=1e-5, rtol=1e-5)


def test_the_contrast_is_what_the_new_object_has_and_the_old_one_lacks(
    tiny_subject: LanguageSubject,
) -> None:
    template, records = (
        "The capital of {} is",
        [EditRecord(entity="A dog", old_object="Paris", new_object="Tokyo")],
    )
    back = [EditRecord(entity="A dog", old_object="Tokyo", new_object="Paris")]
    attribute, entity = READ.index("attribute"), READ.index("entity")
    there = read_records(tiny_subject, template, records, [1]).inputs("contrast")[1]
    backward = read_records(tiny_subject, template, back, [1]).inputs("contrast")[1]
    torch.testing.assert_close(there[:, attribute], -backward[:, attribute])
    published = read_records(tiny_subject, template, records, [1]).inputs("attribute")[1]
    old = read_records(tiny_subject, template, back, [1]).inputs("attribute")[1]
    torch.testing.assert_close(
        there[:, attribute], (published - old)[:, attribute], atol=1e-5, rtol=1e-5
    )
    # The entity stands before the attribute: it is the same whatever is said of it.
    for each in (backward, published, old):
        torch.testing.assert_close(each[:, entity], there[:, entity], atol=1e-5, rtol=1e-5)
    prompt = ask(template, "A dog")
    site = Site(layer=1)
    batch = tiny_subject.batch([prompt.text])
    resid = tiny_subject.activations(batch, [site])[site][0]
    at = tiny_subject.last_token(prompt.text, prompt.entity_end)
    torch.testing.assert_close(there[0, entity], resid[at], atol=1e-5, rtol=1e-5)


def test_generation_adds_the_direction_once_and_never_at_new_tokens(
    any_tiny: LanguageSubject,
) -> None:
    prompts = [ask("The capital of {} is", "France"), ask("{} is an", "A dog")]
    generator = torch.Generator().manual_seed(2)
    directions = 3 * torch.randn(2, any_tiny.d_model, generator=generator)
    edit = edit_at_entity(any_tiny, prompts, 1, directions)
    seen: list[int] = []

    def counting(activations: torch.Tensor) -> torch.Tensor:
        seen.append(activations.shape[1])
        return edit.apply(activations)

    n_new = 5
    texts = [prompt.text for prompt in prompts]
    written = any_tiny.generate(texts, n_new, edits=[Edit(edit.site, counting)])
    batch = any_tiny.batch(texts)
    assert seen == [batch.ids.shape[1]]
    # The same by full passes: the direction stays where the entity is while the text grows.
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([any_tiny.token_ids(prompt.text)])
        at = ids.shape[1] + any_tiny.last_token(prompt.text, prompt.entity_end)
        start = ids.shape[1]

        def once(
            activations: torch.Tensor, at: int = at, direction: torch.Tensor = directions[row]
        ) -> torch.Tensor:
            edited = activations.clone()
            edited[:, at] += direction
            return edited

        for _ in range(n_new):
            with torch.no_grad(), any_tiny.editing([Edit(Site(layer=1), once)]):
                token = any_tiny.model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, token[:, None]], dim=1)
            if int(token) == any_tiny.tokenizer.eos_token_id:
                break
        expected = any_tiny.tokenizer.decode(ids[0, start:], skip_special_tokens=True)
        assert written[row] == expected
