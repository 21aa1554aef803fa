"""Take the screenshot of docs/survey.md: `python -m tools.survey_screen docs/images`.

It shows a survey of synthetic scenes, in one folder per kind of scene.
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from uniemox.cli import app
from uniemox.data.source import open_data

COUNT = 160


def main() -> None:
    out = Path(sys.argv[1]) / "survey.png"
    with tempfile.TemporaryDirectory() as name, sync_playwright() as play:
        folder = Path(name)
        for sample in open_data(f"synthetic:{COUNT}").samples:
            scene_folder = folder / "scenes" / str((sample.annotation or {})["scene"])
            scene_folder.mkdir(parents=True, exist_ok=True)
            (scene_folder / sample.key).write_bytes(sample.image.read())
        with contextlib.chdir(folder):
            words = ["survey", "scenes", "--no-persons", "--out", "survey.html"]
            app(words, exit_on_error=False, result_action="return_none")
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1000, "height": 1250}, color_scheme="light").new_page()
        page.goto((folder / "survey.html").as_uri())
        page.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    main()
