"""Every text of a report may be hostile: both renderings show it and obey none of it."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dragoman.agent.rendering.html import render_html
from dragoman.agent.rendering.markdown import render_markdown
from dragoman.agent.rendering.prose import literal
from dragoman.core.escaping import visible
from dragoman.core.report import Report

PAYLOADS = (
    "<script>alert(1)</script>",
    "</style></title><style>*{display:none}</style>",
    '"><img src=https://evil.example/x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- ]]> --><svg onload=alert(1)><a xlink:href=javascript:alert(1)>",
    "{{ 7 * 7 }}{% raw %}{# x #}",
    "&lt;b&gt; &#60;b&#62;",
    "![x](https://evil.example/x) [x](javascript:alert(1)) [x]: https://evil.example",
    "https://evil.example www.evil.example <https://evil.example> a@evil.example",
    "| a | b |\n|---|---|\n| c | d |",
    "\n\n# heading\n\n- item\n\n1. item\n\n> quote\n\n    code\n\n---\n\n***\n",
    "`one` ``two`` ```three\n```\n~~~\n",
    "**bold** _em_ ~~gone~~ $x$ \\( y \\) \\",
    "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\x00\x7f",
    "\u202eevil\u2066\u200b\ufeff\U000e0041",
    "lone \ud800 \udfff surrogates",
    "[@click=app.quit]press[/] [/ [bold]",
    "\r\nline\u2028separator\u2029x",
    "javascript:alert(1) data:text/html,x //evil.example",
    "1. one",
    "+ plus",
    "=====",
    "- minus",
    "# hash",
)
# Fields whose values are closed sets or identify a file: no foreign text fits into them.
CLOSED = frozenset(
    {"status", "bearing", "severity", "rung", "outcome", "unit", "kind", "media_type"}
)
PROSE = frozenset({"verdict", "narrative"})


def poisoned(report: Report, payload: str, *, ahead: bool = False) -> tuple[Report, dict[str, str]]:
    """Every open string with a mark and `payload` after it, or `ahead` of it; the marks, by path.

    Equal strings become equal strings, so that ids still resolve.
    """
    marks: dict[str, str] = {}
    paths: dict[str, str] = {}

    def poison(value: Any, path: str, key: str) -> Any:
        if isinstance(value, dict):
            return {name: poison(each, f"{path}.{name}", name) for name, each in value.items()}
        if isinstance(value, list):
            return [poison(each, path, key) for each in value]
        if not isinstance(value, str) or key in CLOSED:
            return value
        mark = marks.setdefault(value, f"mark{len(marks)}x")
        paths[path] = mark
        bane = payload
        if key == "text":
            # Names of metrics changed, so holes go; braces of the payload are literal ones.
            value, bane = re.sub(r"{[^{}]*}", "", value), literal(payload)
        return f"{bane} {value} {mark}" if ahead else f"{value} {mark} {bane}"

    raw = poison(report.model_dump(mode="json"), "", "")
    return Report.model_validate(raw), paths


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VOID = words("meta img line circle")
TAGS = words(
    "html head meta title style body header nav main section footer article figure figcaption"
    " h1 h2 h3 h4 p a span b strong code pre ul ol li dl dt dd div table thead tbody tr th td"
    " img svg line circle text"
)
ATTRIBUTES = words(
    "class id href title lang charset content name http-equiv role alt src scope colspan rowspan"
    " data-label aria-label aria-hidden width height x y x1 x2 y1 y2 cx cy r text-anchor"
)


class Page(HTMLParser):
    """Tags, attributes and text of a page; unclosed or foreign markup raises."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.meta: dict[str, str] = {}
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images: list[str] = []
        self.shape: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        self.shape.append(tag)
        values = dict(attrs)
        assert len(values) == len(attrs)
        assert set(values) <= ATTRIBUTES, values
        if tag not in VOID:
            self.open.append(tag)
        if tag == "meta" and "http-equiv" in values:
            self.meta[str(values["http-equiv"])] = str(values["content"])
        if "href" in values:
            assert tag == "a"
            self.links.append(str(values["href"]))
        if "src" in values:
            assert tag == "img"
            self.images.append(str(values["src"]))
        if "id" in values:
            self.ids.append(str(values["id"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self.open and self.open[-1] == "style" else self.texts).append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def read_page(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def plain(audit_report: Report) -> Report:
    """The same report with marks and no payload: what the structure is to stay like."""
    return poisoned(audit_report, "harmless")[0]


@pytest.fixture(scope="module")
def plain_shape(plain: Report, report_home: Path) -> list[str]:
    return read_page(render_html(plain, report_home)).shape


@pytest.fixture(scope="module")
def plain_structure(plain: Report) -> list[str]:
    return structure(read_markdown(render_markdown(plain)))


def policy_holds(page: Page) -> bool:
    """The style is one, is the one that the policy admits, and nothing else is admitted."""
    (style,) = page.styles
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return page.meta["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def test_page_of_the_recorded_report(audit_report: Report, report_home: Path) -> None:
    html = render_html(audit_report, report_home)
    page = read_page(html)
    assert policy_holds(page)
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert [image.partition(";")[0] for image in page.images] == [
        "data:image/svg+xml",
        "data:image/png",
    ]
    assert "url(" not in page.styles[0]
    assert "@import" not in page.styles[0]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_page(
    payload: str, audit_report: Report, report_home: Path, plain_shape: list[str]
) -> None:
    report, marks = poisoned(audit_report, payload)
    page = read_page(render_html(report, report_home))
    assert page.shape == plain_shape
    assert policy_holds(page)
    assert all(link.startswith("#") for link in page.links)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert page.images == []  # no poisoned path leads to a file
    text = "".join(page.texts)
    assert set(marks) - shown(marks, text) <= NOT_SHOWN
    # Evidence is escaped, not stripped: what the payload says can be read.
    assert visible(payload).split()[0] in text
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff]", text
    )


NOT_SHOWN = frozenset(
    {
        # Shown by label instead: C1, E1.
        ".claims.id",
        ".claims.evidence_ids",
        ".claims.control_ids",
        ".claims.hypothesis_id",
        ".evidence.control_ids",
        ".concerns.claim_id",
        ".negative_results.claim_ids",
        ".verdict.claim_ids",
        ".narrative.claim_ids",
        ".hypotheses.id",
        # Told by what they do: the statement stands for the template, the replay for the tool.
        ".hypotheses.template",
        ".hypotheses.slots.relation",
        ".hypotheses.tool",
        ".hypotheses.arguments.relation",
        ".hypotheses.arguments.effort",
        # Cut to their first twelve digits.
        ".evidence.experiment_id",
        ".evidence.artifacts.sha256",
        # The path ends in it.
        ".evidence.artifacts.name",
    }
)


def shown(marks: dict[str, str], text: str) -> set[str]:
    return {path for path, mark in marks.items() if mark in text}


def flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from flat(token.children or [])


def read_markdown(text: str) -> list[Token]:
    # Raw HTML on: if it were there, this parser would say so.
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return list(flat(parser.parse(text)))


def structure(tokens: list[Token]) -> list[str]:
    return [token.type for token in tokens if token.type not in {"text", "text_special"}]


@pytest.mark.parametrize("ahead", [False, True], ids=["after", "ahead"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_markdown(
    payload: str, ahead: bool, audit_report: Report, plain_structure: list[str]
) -> None:
    report, marks = poisoned(audit_report, payload, ahead=ahead)
    rendered = render_markdown(report)
    tokens = read_markdown(rendered)
    assert structure(tokens) == plain_structure
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_block", "html_inline", "image", "s_open"}
    links = [str(token.attrs["href"]) for token in tokens if token.type == "link_open"]
    assert all(re.fullmatch(r"#[ce]\d+", link) for link in links)
    text = "".join(token.content for token in tokens)
    assert set(marks) - shown(marks, text) <= NOT_SHOWN
    assert visible(payload, one_line=True).split()[0] in text
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff]", rendered
    )
    rendered.encode("utf-8")


def test_markdown_links_lead_to_headings(audit_report: Report) -> None:
    tokens = read_markdown(render_markdown(audit_report))
    headings = {
        tokens[at + 1].content.lower()
        for at, token in enumerate(tokens)
        if token.type == "heading_open"
    }
    links = [str(token.attrs["href"]) for token in tokens if token.type == "link_open"]
    assert links
    assert {link.removeprefix("#") for link in links} <= headings


def test_prose_keeps_its_words(audit_report: Report) -> None:
    """A reader of either rendering sees the verdict's sentence with its numbers in place."""
    from dragoman.agent.rendering.prose import claims_by_id, sentence_text

    sentence = sentence_text(audit_report.verdict[0], claims_by_id(audit_report))
    assert "(0.64 [0.43, 0.80], n = 22 (2 failed), against 0.05" in sentence
    tokens = read_markdown(render_markdown(audit_report))
    said = "".join(token.content for token in tokens if token.type == "text")
    assert sentence in said
