"""From one `Report` to Markdown and HTML; how a number, a status and a sentence are worded."""
