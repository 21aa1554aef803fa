"""The command that writes a page about runs."""

from pathlib import Path

from uniemox.cli.console import need, progress_bar, say


def report(*runs: Path, out: Path) -> None:
    """Write one HTML page about runs: curves, reconstructions, scores, confusion, reliability, examples, comparison.

    The page is a single file that contains everything, including images of the data: check it before you publish it.

    For example:

    - uniemox report runs/fi --out report.html
    - uniemox report runs/pre runs/fi runs/fi-without-pretraining --out report.html

    Args:
        runs: Folders of pre-training and fine-tuning runs. Fine-tuning runs scored on the same data are compared.
        out: HTML file to write.
    """
    need("torch", "timm", "tensorboard", "matplotlib", extra="train")
    from uniemox.evaluate.report.page import write_report

    with progress_bar() as progress:
        write_report(runs, out, on_progress=progress.show)
    say(f"wrote {out}")
