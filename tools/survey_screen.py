"""Take the screenshots of docs/survey.md: `python -m tools.survey_screen docs/images`.

They show a survey of synthetic scenes, in one folder per kind of scene, and a search in them, on a desktop and on a
phone.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from tools.screenshots import VIEWS, open_chromium, save_screenshot
from uniemox.cli import app
from uniemox.data.source import open_data

COUNT = 160


def main() -> None:
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name, open_chromium() as browser:
        folder = Path(name)
        write_pages(folder)
        for ending, settings in VIEWS.items():
            page = browser.new_context(color_scheme="light", **settings).new_page()
            page.goto((folder / "search.html").as_uri())
            save_screenshot(page, out / f"search{ending}.png")
            page.goto((folder / "survey.html").as_uri())
            save_screenshot(page, out / f"survey{ending}.png")
            page.get_by_role("combobox", name="Emotion").select_option("awe")
            page.get_by_role("combobox", name="Order").select_option("awe")
            page.locator("#tiles input").first.check()
            page.locator("#gallery").evaluate("gallery => gallery.scrollIntoView()")
            save_screenshot(page, out / f"survey_gallery{ending}.png")


def write_pages(folder: Path) -> None:
    """Write survey.html and search.html about synthetic scenes."""
    for sample in open_data(f"synthetic:{COUNT}").samples:
        scene_folder = folder / "scenes" / str((sample.annotation or {})["scene"])
        scene_folder.mkdir(parents=True, exist_ok=True)
        (scene_folder / sample.key).write_bytes(sample.image.read())
    with contextlib.chdir(folder):
        query = str(next(Path("scenes").rglob("*.png")))
        for words in (
            ["survey", "scenes", "--no-persons", "--out", "survey.html"],
            ["search", "scenes", "--like", query, "--mood", "valence>5", "--unfamiliar", "--out", "search.html"],
        ):
            app(words, exit_on_error=False, result_action="return_none")


if __name__ == "__main__":
    main()
