"""Accessibility of pages, checked by axe-core in Chromium."""

from pathlib import Path

import pytest

NPM = Path(__file__).parents[1] / "build/npm/node_modules/axe-core"
needs_axe = pytest.mark.skipif(not NPM.exists(), reason="npm install --prefix build/npm axe-core@4.14.1")
SIZES = ({"width": 1366, "height": 768}, {"width": 390, "height": 844})
# Labels that differ from what is seen are an experimental rule, which is off by default.
VIOLATIONS = """async () => {
  const rules = { "label-content-name-mismatch": { enabled: true } };
  const { violations } = await axe.run({ rules });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
}"""


def violations_of(page: object) -> list[str]:
    """Return the rule and the element of each violation of an open page, on a desktop and a phone, light and dark.

    A page with a policy of its own needs a context with bypass_csp.
    """
    page.evaluate((NPM / "axe.min.js").read_text("utf-8"))
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    violations = []
    for size in SIZES:
        page.set_viewport_size(size)
        for colours in ("light", "dark"):
            page.emulate_media(color_scheme=colours, reduced_motion="reduce")
            violations += [f"{size['width']} px, {colours}: {words}" for words in page.evaluate(VIOLATIONS)]
    return violations
