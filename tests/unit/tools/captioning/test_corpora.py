import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dragoman.core.errors import UserError
from dragoman.tools.captioning.corpora import open_corpus
from dragoman.tools.captioning.corpus import read_corpus

TEXTS = [f"Text {number} über a dog." for number in range(60)]


def _parquet(path, texts, name="text", **options):
    pq.write_table(pa.table({"id": list(range(len(texts))), name: texts}), path, **options)
    return path


def _dataset(folder, *files, name="text"):
    """What `save_to_disk` leaves: arrow streams, and a state that names them."""
    folder.mkdir()
    listed = []
    for number, texts in enumerate(files):
        file = folder / f"data-{number:05}-of-{len(files):05}.arrow"
        table = pa.table({name: texts})
        with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_stream(opened, table.schema) as out:
            out.write_table(table, max_chunksize=7)
        listed.append({"filename": file.name})
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": listed, "_split": "train"}))
    return folder


def _every_kind(folder):
    (folder / "a.txt").write_text("\n".join(TEXTS))
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    _parquet(folder / "a.parquet", TEXTS, row_group_size=11)
    _dataset(folder / "dataset", TEXTS[:25], TEXTS[25:])
    return [folder / name for name in ("a.txt", "a.jsonl", "a.parquet", "dataset")]


def test_every_kind_of_file_holds_the_same_texts(make_tiny, tmp_path):
    tokenizer = make_tiny().tokenizer
    for path in _every_kind(tmp_path):
        corpus = open_corpus(path)
        assert list(corpus.texts()) == TEXTS
        assert list(corpus.first(7).parts[0].texts()) == TEXTS[:7]
        assert read_corpus(path, tokenizer, 55).documents == tuple(TEXTS[:55])
    assert len(open_corpus(tmp_path / "dataset").parts) == 2


def test_a_folder_of_files_is_one_corpus_in_the_order_of_names(tmp_path):
    (tmp_path / "b.txt").write_text("two\n\n  \nthree\r\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    _parquet(tmp_path / "c.parquet", ["four"])
    (tmp_path / "README.md").write_text("no corpus")
    corpus = open_corpus(tmp_path)
    assert list(corpus.texts()) == ["one", "two", "three", "four"]
    assert "3 files" in corpus.description


def test_other_columns_and_string_types_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    column = pa.array(["x", "y", "x"]).dictionary_encode()
    pq.write_table(
        pa.table({"body": column, "large": pa.array(["l"] * 3, pa.large_string())}), path
    )
    assert list(open_corpus(path, field="body").texts()) == ["x", "y", "x"]
    assert list(open_corpus(path, field="large").texts()) == ["l"] * 3


def test_a_file_is_named_by_its_content(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one\ntwo")
    second.write_text("one\ntwo")
    assert open_corpus(first).parts[0].id == open_corpus(second).parts[0].id
    assert open_corpus(first).parts[0].id != open_corpus(first, field="body").parts[0].id
    before = open_corpus(first).id
    first.write_text("one\ntwo!")
    assert open_corpus(first).id != before


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    assert list(open_corpus(tmp_path / "a.txt").texts()) == ["one", "two"]


def test_texts_are_streamed(tmp_path):
    # A fault far down is no reason to refuse what comes before it.
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n{"tex')
    texts = open_corpus(path).texts()
    assert [next(texts), next(texts)] == ["one", "two"]
    with pytest.raises(UserError, match="line 3"):
        next(texts)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda f: (f / "a.txt").write_bytes(b"fine\n\xff\xfe"), "a.txt, line 2: cannot be read"),
        (lambda f: (f / "a.jsonl").write_text('{"text": 3}'), "a.jsonl, line 1: no string named"),
        (lambda f: (f / "a.jsonl").write_text("[" * 99999), "a.jsonl, line 1"),
        (lambda f: _parquet(f / "a.parquet", ["x"], "body"), "no column 'text'; it has id, body"),
        (lambda f: _parquet(f / "a.parquet", ["x", None]), "a.parquet, row 2: no string in column"),
        (lambda f: _parquet(f / "a.parquet", [1, 2]), "a.parquet, row 1: no string in column"),
        (lambda f: (f / "a.parquet").write_bytes(b"PAR1"), "cannot be read as parquet"),
        (lambda f: (f / "a.md").write_text("x"), "neither a Hugging Face dataset"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, make, named):
    folder = tmp_path / "corpus"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError) as caught:
        list(open_corpus(folder).texts())
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: (f / "data-00000-of-00001.arrow").unlink(), "no such file, though state.json"),
        (lambda f: (f / "data-00000-of-00001.arrow").write_bytes(b"x" * 99), "read as arrow"),
        (lambda f: (f / "state.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "state.json").write_text("{}"), "names no data files"),
        (
            lambda f: (f / "state.json").write_text(
                '{"_data_files": [{"filename": "../../x.py"}]}'
            ),
            "x.py is no .arrow file",
        ),
        (
            lambda f: (f / "state.json").write_text('{"_indices_files": [{"filename": "i"}]}'),
            "flatten_indices",
        ),
        (lambda f: (f / "dataset_dict.json").write_text('{"splits": ["train"]}'), "train"),
    ],
)
def test_a_damaged_dataset_is_refused(tmp_path, change, named):
    folder = _dataset(tmp_path / "dataset", TEXTS)
    change(folder)
    with pytest.raises(UserError) as caught:
        list(open_corpus(folder).texts())
    assert named in str(caught.value)


def test_what_is_no_corpus_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"absent\.parquet: cannot be read: no such file"):
        open_corpus(tmp_path / "absent.parquet")
    with pytest.raises(UserError, match="a corpus is a"):
        open_corpus(tmp_path / "absent.csv")
