"""Take the screenshots of docs/curate.md: `python -m tools.curate_screens docs/images`.

Runs the steps of the demo with a few images, and opens its pages in Chromium.
"""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.curate.places import served
from tools.screenshots import DESK, VIEWS, open_chromium, save_screenshot
from uniemox_curate.annotate.access import invite
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.run import fetch, search
from uniemox_curate.collect.screen import screen
from uniemox_curate.collect.sources import local_folder
from uniemox_curate.demo import demo
from uniemox_curate.plan import AnswerForm
from uniemox_curate.project import Project, create_project, open_project

PAGES = ("status", "screen", "judge")


def main() -> None:
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name, open_chromium() as browser:
        demo(Path(name), count=96, schemes=5)
        project = open_project(Path(name) / "project")
        with served(project) as address:
            for suffix, settings in VIEWS.items():
                draw_pages(browser, project, address, settings, out, suffix)
        draw_form(browser, project, Path(name) / "form", out / "curate_form.png")


def draw_pages(browser: Any, project: Project, address: str, settings: dict[str, Any], out: Path, suffix: str) -> None:
    """Take screenshots of an annotator's page after the first answer, and of the owner's pages."""
    page = browser.new_context(color_scheme="light", **settings).new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{address}/join#{invite(project, f'Cleo{suffix}')}")
    page.wait_for_selector("#picture:not([hidden])[alt='Image 1']")
    page.keyboard.press("7")
    page.wait_for_selector("#picture:not([hidden])[alt='Image 2']")
    save_screenshot(page, out / f"curate_annotate{suffix}.png")
    page = browser.new_context(color_scheme="light", **settings).new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{address}/join#{invite(project, 'owner', 'owner')}")
    page.wait_for_url("**/status")
    for name in PAGES:
        page.goto(f"{address}/{name}")
        page.wait_for_selector("#steps li, #grid img, #picture:not([hidden])")
        page.wait_for_load_state("networkidle")
        save_screenshot(page, out / f"curate_{name}{suffix}.png")


def draw_form(browser: Any, project: Project, folder: Path, out: Path) -> None:
    """Take a screenshot of the long form in German, on a laptop, with one of the demo's images."""
    form = AnswerForm(several=True, intensity=True, affect=True)
    (folder / "in" / "awe").mkdir(parents=True)
    shutil.copy(next((project.folder / "pictures").rglob("*.jpg")), folder / "in" / "awe")
    long = create_project(folder / "project", replace(project.plan, answer=form, check_every=0))
    search(long, [local_folder(folder / "in", long.plan)], CollectConfig())
    fetch(long, CollectConfig(), folders=[folder / "in"])
    screen(long)
    with served(long) as address:
        page = browser.new_context(locale="de-DE", **DESK).new_page()
        page.goto(f"{address}/join#{invite(long, 'Cleo')}")
        page.wait_for_selector("#picture:not([hidden])")
        for key in "31":
            page.keyboard.press(key)
        page.get_by_role("radio", name="7").nth(1).check()
        save_screenshot(page, out)


if __name__ == "__main__":
    main()
