"""Comparison of the agreement, the split and the newest release with the images that the rule keeps now."""

import json
from collections.abc import Mapping
from typing import Any

from uniemox.plurals import counted
from uniemox_curate.annotate.kept_sets import KeptSet
from uniemox_curate.counters import Counts
from uniemox_curate.plan import MIN_ANSWERS


def agreement_change(saved: Mapping[str, Any] | None, counts: Counts) -> str:
    """Return a clause about changes since agreement was computed; empty if it is up to date, or was never computed.

    Args:
        saved: The setting "agreement".
        counts: Counts of the project.
    """
    if saved is None:
        return ""
    later = counts.newest_answer - saved["of_answers"]
    if later > 0:
        return f"{counted(later, 'answer')} came later"
    # Figures do not depend on the rule. Older versions have not recorded the images.
    if "kept" not in saved or saved["rule"] != counts.basis.rule:
        return ""
    return _difference(saved["kept"], counts.labelled)


def split_change(saved: Mapping[str, Any] | None, counts: Counts) -> str:
    """Return a clause about changes since the split was drawn; empty if it is up to date, or was never drawn.

    Args:
        saved: The setting "split".
        counts: Counts of the project.
    """
    if not saved:
        return ""
    if "kept" in saved:
        return _difference(saved["kept"], counts.labelled)
    # Older versions recorded numbers alone. Fewer images may be due to a takedown, which needs no other split.
    images = sum(saved["sizes"].values())
    return _numbers(images, counts.labelled.images) if images < counts.labelled.images else ""


def release_change(row: Any, saved: Mapping[str, Any] | None, split: Mapping[str, Any] | None, counts: Counts) -> str:
    """Return a clause about changes since the newest release; empty if it is up to date.

    Args:
        row: Row of the newest release.
        saved: The setting "release".
        split: The setting "split".
        counts: Counts of the project.
    """
    if saved is None or saved["number"] != row.id:
        options = json.loads(row.options)
        # Older versions recorded numbers alone, which depend on further options.
        if options.get("only_licensed") or options.get("min_answers", MIN_ANSWERS) != MIN_ANSWERS:
            return ""
        return "" if row.pictures == counts.labelled.images else _numbers(row.pictures, counts.labelled.images)
    if change := _difference(saved["kept"], counts.labelled):
        return change
    if saved["split"] != (split or {}).get("sha256"):
        return "the split was drawn again"
    # Then more than the labels depends on the answers: the shares, or which images have enough answers.
    needs_answers = counts.basis.rule == "soft" or saved["min_answers"] != MIN_ANSWERS
    if needs_answers and saved["newest_answer"] < counts.newest_answer:
        return f"{counted(counts.newest_answer - saved['newest_answer'], 'answer')} came later"
    return ""


def _difference(saved: Mapping[str, int], now: KeptSet) -> str:
    """Return a clause about the images that the rule keeps now instead of others; empty if they are the same."""
    if saved["images"] != now.images:
        return _numbers(saved["images"], now.images)
    if saved["fingerprint"] != now.fingerprint:
        return f"the rule keeps {counted(now.images, 'image')} as before, but not the same images and labels"
    return ""


def _numbers(before: int, now: int) -> str:
    return f"the rule keeps {counted(now, 'image')} now instead of {before:,}"
