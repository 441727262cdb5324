"""A captioner in a local folder proposes; what it writes is data, and ranked like all else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from dragoman.core.errors import ToolError, UserError
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.vision.bench import lay_out, shown_exemplars
from dragoman.tools.captioning.vision.describing import choose_all
from dragoman.tools.captioning.vision.local_proposer import SHOWN, ImageToText, local_proposers
from dragoman.tools.captioning.vision.pictures import masked_crops
from dragoman.tools.captioning.vision.reading import named_in, read
from dragoman.tools.context import ToolContext

from .conftest import COLOURS, Gallery

UNITS = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def captioner(folder: Path, words: Sequence[str], *, n_tokens: int = 6) -> Path:
    """A tiny pair of encoder and decoder with random weights, which can say these words alone."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    encoder = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
    )
    decoder = transformers.GPT2Config(
        vocab_size=len(vocabulary),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=2,
        add_cross_attention=True,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.VisionEncoderDecoderModel(config=config)
        for weight in model.parameters():
            weight.data = torch.randn_like(weight)
    said = model.generation_config
    said.decoder_start_token_id, said.pad_token_id, said.eos_token_id = 1, 0, 2
    said.suppress_tokens, said.min_new_tokens = [0, 1, 3], n_tokens
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioner(tmp_path_factory.mktemp("captioner"), COLOURS)


def pictures(n: int) -> list[Image.Image]:
    values = np.random.default_rng(0).integers(0, 256, (n, 40, 40, 3), np.uint8)
    return [Image.fromarray(each) for each in values]


def test_proposals_compete_and_cost_is_counted(
    gallery: Gallery, colours: Path, tmp_path: Path
) -> None:
    context = gallery.context(tmp_path)
    bench = lay_out(context, 0, UNITS, gallery.images, n_decoys=6, twin=False)
    (proposer,) = local_proposers(str(colours))
    own = tmp_path / "own"
    suggested = proposer.suggest(_caching(context, own), bench, UNITS)
    assert len(suggested.captions) == len(UNITS)
    assert any(suggested.captions)
    for captions in suggested.captions:
        assert all(read(caption) is not None for caption in captions)
    assert suggested.n_calls + suggested.n_cached == len(UNITS) * SHOWN
    assert suggested.n_failed == 0
    again = proposer.suggest(_caching(context, own), bench, UNITS)
    assert (again.captions, again.n_calls) == (suggested.captions, 0)
    choices = choose_all(_caching(context, own), bench, proposers=[proposer])
    cost: Any = choices.cost[proposer.name]
    assert (cost["calls"], cost["from_cache"]) == (0, len(UNITS) * SHOWN)
    plain = choose_all(context, bench)
    for with_it, without in zip(choices.chosen, plain.chosen, strict=True):
        assert with_it is not None
        assert without is not None
        assert with_it.n_candidates >= without.n_candidates
        assert with_it.ranked.score(0.95) >= without.ranked.score(0.95)


def _caching(context: ToolContext, cache: Path) -> ToolContext:
    return replace(context, cache=cache)


def test_crops_hold_the_mask_and_nothing_much_else(gallery: Gallery, tmp_path: Path) -> None:
    context = gallery.context(tmp_path)
    exemplars, images = shown_exemplars(context, gallery.images, [0])
    crops = masked_crops(context.vision, images, exemplars, 0, 0, 3)
    masks = exemplars.masks(0, 0, context.vision.preprocessing.size)[:3]
    assert len(crops) == 3
    for number, crop, mask in zip(exemplars.images(0, 0).tolist(), crops, masks, strict=False):
        view = context.vision.view(images.load(number))
        bright = (view * np.where(mask, 1.0, 0.25)[..., None]).astype(np.uint8)
        assert crop.width == crop.height <= mask.shape[0]
        assert np.asarray(crop).sum() >= bright[mask].sum()


def test_what_it_writes_is_escaped_cut_and_counted_where_it_says_nothing(
    gallery: Gallery, tmp_path: Path
) -> None:
    hostile = "\x1b[31mwonder" + "!" * 90
    model = ImageToText(captioner(tmp_path / "hostile", [hostile, "beauty"]))
    texts, n_new = model.describe(pictures(2), tmp_path / "cache")
    assert n_new == 2
    assert all("\x1b" not in text for text in texts)
    assert any("wonder" in text for text in texts)
    assert all(len(text) < 1000 for text in texts)
    context = gallery.context(tmp_path)
    bench = lay_out(context, 0, [0], gallery.images, n_decoys=6, twin=False)
    suggested = model.suggest(_caching(context, tmp_path / "cache"), bench, [0])
    assert suggested.captions == [()]
    assert suggested.n_failed == SHOWN


def test_the_tool_takes_the_folder_and_says_what_is_wrong_with_it(
    gallery: Gallery, colours: Path, tmp_path: Path, tiny_subject: Any
) -> None:
    def run(folder: Path) -> Any:
        arguments = caption_neurons.parse(
            {
                "layer": 0,
                "neurons": [0],
                "images": str(gallery.folder),
                "effort": "quick",
                "captioner": str(folder),
            }
        )
        experiment = caption_neurons.experiment(arguments, subject_digest="", seed=0)
        return caption_neurons.run(gallery.context(tmp_path), experiment)

    told = run(colours)
    assert told.status == "ok", told.error
    assert len(told.output["proposers"]) == 1
    language = tmp_path / "language"
    tiny_subject.model.save_pretrained(language)
    assert "model_type 'llama' describes no images" in run(language).error
    assert "no config.json" in run(tmp_path / "absent").error


def test_weights_that_are_lacking_are_told(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((colours / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"no \*\.safetensors file"):
        ImageToText(tmp_path)
    with pytest.raises(ToolError, match=r"captioner: .*no \*\.safetensors"):
        local_proposers(str(tmp_path))


def test_names_are_read_out_of_a_sentence() -> None:
    assert named_in("A Tabby cat and two cats, on a red sofa.") == (
        'things like "tabby"',
        "cats",
        "red areas",
    )
    assert named_in("a sense of wonder") == ()
