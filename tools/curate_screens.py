"""The screenshots of docs/curate.md: `python -m tools.curate_screens docs/images`.

Goes the demo's way with a few images, and opens its pages in Chromium.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from uniemox.curate.annotate.access import invite
from uniemox.curate.annotate.serving import served
from uniemox.curate.demo import demo
from uniemox.curate.project import open_project

PAGES = ("status", "screen", "judge")
SIZE = {"width": 1100, "height": 760}


def main() -> None:
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name, sync_playwright() as play:
        demo(Path(name), count=96, schemes=5)
        project = open_project(Path(name) / "project")
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with served(project) as address:
            page = browser.new_context(viewport=SIZE, color_scheme="light").new_page()
            page.set_default_timeout(120_000)
            page.goto(f"{address}/join#{invite(project, 'Cleo')}")
            page.wait_for_selector("#picture:not([hidden])")
            page.screenshot(path=out / "curate_annotate.png")
            page = browser.new_context(viewport=SIZE, color_scheme="light").new_page()
            page.set_default_timeout(120_000)
            page.goto(f"{address}/join#{invite(project, 'Eva', 'owner')}")
            for name_of_page in PAGES:
                page.goto(f"{address}/{name_of_page}")
                page.wait_for_selector("#steps li, #grid img, #picture:not([hidden])")
                page.wait_for_load_state("networkidle")
                page.screenshot(path=out / f"curate_{name_of_page}.png")
        browser.close()


if __name__ == "__main__":
    main()
