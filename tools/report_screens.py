"""Take the screenshots of docs/training.md: `python -m tools.report_screens docs/images RUN...`.

They show the curves of the first run in a report of these runs, on a desktop and on a phone. `make demo` makes runs:
runs/demo/finetuned_both runs/demo/finetuned_scene runs/demo/pretrained.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tools.screenshots import save_screenshot
from uniemox.evaluate.report.page import write_report

VIEWS = {
    "report": {"viewport": {"width": 1366, "height": 768}},
    "report_phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


def main() -> None:
    out, *runs = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as name, sync_playwright() as play:
        report = Path(name) / "report.html"
        write_report(runs, report)
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for view, settings in VIEWS.items():
            page = browser.new_context(color_scheme="light", **settings).new_page()
            page.goto(report.as_uri())
            page.get_by_role("heading", name="Training curves").first.evaluate("heading => heading.scrollIntoView()")
            save_screenshot(page, out / f"{view}.png")
        browser.close()


if __name__ == "__main__":
    main()
