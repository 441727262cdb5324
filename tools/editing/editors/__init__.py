"""The kinds of editor, one module each, behind one protocol (`base.Editor`)."""
