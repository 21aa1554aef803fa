"""Take the screenshots of docs/serve.md: `python -m tools.serve_screens docs/images`.

They show the page on a desktop and on a phone, with the package's model and an image of the docs.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import uniemox
from tests.serve.serving import running
from tools.screenshots import save_screenshot

IMAGE = "cat.jpg"
VIEWS = {
    "serve": {"viewport": {"width": 1366, "height": 768}},
    "serve_phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


def main() -> None:
    out = Path(sys.argv[1])
    with running([uniemox.load()]) as server, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, settings in VIEWS.items():
            page = browser.new_context(color_scheme="light", **settings).new_page()
            page.goto(server.url)
            page.locator("#example .bars").first.wait_for()
            save_screenshot(page, out / f"{name}_empty.png")
            page.locator("#choose").set_input_files(out / IMAGE)
            page.get_by_role("button", name="Heat map").click()
            page.get_by_text("bright areas support").wait_for()
            page.evaluate("scrollTo(0, 0)")
            save_screenshot(page, out / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
