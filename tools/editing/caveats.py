"""What a reader of an edit's figures should know besides them."""

from dragoman.tools.editing.records import EditRecord
from dragoman.tools.editing.study import Study


def edit_caveats(study: Study, record: EditRecord) -> list[str]:
    """What is unusual about one edit: an unknown fact, an object that training never saw."""
    knowledge, caveats = study.knowledge, []
    if record.entity not in knowledge.known[knowledge.rewrite]:
        caveats.append(
            f"the subject did not know the {study.relation.name} of {record.entity!r} before"
        )
    if record.new_object not in knowledge.objects:
        caveats.append(f"{record.new_object!r} is outside the range that the editor was trained on")
    return caveats
