"""Take the screenshots of docs/training.md: `python -m tools.report_screens docs/images RUN...`.

They show the curves of the first run in a report of these runs, on a desktop and on a phone. `make demo` makes runs:
runs/demo/finetuned_both runs/demo/finetuned_scene runs/demo/pretrained.
"""

import sys
import tempfile
from pathlib import Path

from tools.screenshots import VIEWS, open_chromium, save_screenshot
from uniemox.evaluate.report.page import write_report


def main() -> None:
    out, *runs = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as name, open_chromium() as browser:
        report = Path(name) / "report.html"
        write_report(runs, report)
        for ending, settings in VIEWS.items():
            page = browser.new_context(color_scheme="light", **settings).new_page()
            page.goto(report.as_uri())
            page.get_by_role("heading", name="Training curves").first.evaluate("heading => heading.scrollIntoView()")
            save_screenshot(page, out / f"report{ending}.png")


if __name__ == "__main__":
    main()
