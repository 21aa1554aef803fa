"""The command that shows runs."""

from pathlib import Path

from uniemox.cli.console import need, progress_bar, say


def report(*runs: Path, out: Path) -> None:
    """Show runs on one page: curves, reconstructions, scores, confusion, reliability, examples, and a comparison.

    The page is one HTML file with everything inside, images of the data too: keep that in mind before you publish it.

    For example:

    - uniemox report runs/fi --out report.html
    - uniemox report runs/pre runs/fi runs/fi-without-pretraining --out report.html

    Args:
        runs: Folders of pre-training and fine-tuning; fine-tuning runs that were scored on the same data are compared.
        out: The page.
    """
    need("torch", "timm", "tensorboard", "matplotlib", extra="train")
    from uniemox.evaluate.report.page import write_report

    with progress_bar() as progress:
        write_report(runs, out, on_progress=progress.show)
    say(f"wrote {out}")
