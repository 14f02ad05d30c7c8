"""Show a page, or any block of one: as HTML, as Markdown, as JSON, in a terminal."""
