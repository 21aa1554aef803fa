"""Take the screenshots of docs/serve.md: `python -m tools.serve_screens docs/images`.

They show the page on a desktop and on a phone, with the package's model and an image of the docs.
"""

import sys
from pathlib import Path

import uniemox
from tests.serve.serving import running
from tools.screenshots import VIEWS, open_chromium, save_screenshot

IMAGE = "cat.jpg"


def main() -> None:
    out = Path(sys.argv[1])
    with running([uniemox.load()]) as server, open_chromium() as browser:
        for ending, settings in VIEWS.items():
            page = browser.new_context(color_scheme="light", **settings).new_page()
            page.goto(server.url)
            page.locator("#example .bars").first.wait_for()
            save_screenshot(page, out / f"serve{ending}_empty.png")
            page.locator("#choose").set_input_files(out / IMAGE)
            page.get_by_role("button", name="Heat map").click()
            page.get_by_text("bright areas support").wait_for()
            page.evaluate("scrollTo(0, 0)")
            save_screenshot(page, out / f"serve{ending}.png")


if __name__ == "__main__":
    main()
