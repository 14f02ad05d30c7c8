"""Make the links of a page absolute, as a package index needs them: it shows the README, and nothing beside it.

    python .ci/absolute_links.py README.md https://HOST/OWNER/NAME v1.2.3

Files are linked to as they are at that tag, and images to their raw bytes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|#|mailto:)[^)\s]+)\)")


def absolute(text: str, home: str, tag: str) -> str:
    """A page whose relative links lead to the repository at `home`, at a tag."""

    def link(match: re.Match[str]) -> str:
        kind = "raw" if match["picture"] else "blob"
        return f"{match['picture']}[{match['text']}]({home.rstrip('/')}/{kind}/{tag}/{match['target']})"

    return _LINK.sub(link, text)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(absolute(page.read_text(encoding="utf-8"), sys.argv[2], sys.argv[3]), encoding="utf-8")
