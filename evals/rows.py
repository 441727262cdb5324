"""Lines of a jsonl file that survive a stop at any moment."""

from pathlib import Path


def append_line(path: Path, line: str) -> None:
    """Append one line, on a line of its own even after a line that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as opened:
        opened.seek(0)
        text = opened.read()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            opened.truncate(len(whole.encode()))
        opened.write(f"{line}\n")
