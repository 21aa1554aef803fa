"""Options under the names that they had before version 0.2."""

import re
from collections.abc import Sequence

from uniemox.training.settings import OLD_NAMES

RENAMED = {**OLD_NAMES, "least_answers": "min_answers", "least_score": "min_score", "least_side": "min_side"}
RENAMED |= {"pictures": "images", "max_pictures": "max_images", "save_pictures": "save_images"}
_OPTION = re.compile(r"(--(?:[\w-]+\.)*(?:no-)?)([\w-]+)(=.*)?", re.DOTALL)


def with_new_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's words with today's options, and what was renamed, a line each.

    >>> with_new_options(["finetune", "--optimizer.base-rate", "1e-3"])
    (['finetune', '--optimizer.base-lr', '1e-3'], ['--optimizer.base-rate is now --optimizer.base-lr'])
    """
    changed: list[str] = []
    notices: list[str] = []
    for word in words:
        found = _OPTION.fullmatch(word)
        new = RENAMED.get(found[2].replace("-", "_")) if found else None
        if found and new:
            option = found[1] + new.replace("_", "-")
            notices.append(f"{found[1]}{found[2]} is now {option}")
            changed.append(option + (found[3] or ""))
        else:
            changed.append(word)
    return changed, notices
