"""Adapt the package's models to altered photographs: a trial that was not adopted, see docs/notes.md.

Run: python -m recipes.adaptation --fi fi:fi,fi:fi_more --check check.json --splits splits.json --unlabelled KIND:PATH

check.json is the output of `uniemox data check DATA --json`; splits.json has the images that calibrate the models as
split val, and FI's validation part as test. Each model is trained on altered copies of the training images, and of
images without labels; half of the target is the answer of `embedded` for the plain image. Writes runs/adaptation and
prints the scores on the test split. `python -m recipes.robustness --model runs/adaptation/scene.onnx fi:fi` compares.
"""

import argparse
from pathlib import Path

from recipes.embedded import JUDGING, LOGIT_ADJUSTMENT, STORED, TRAINING, uniemox

OUT = Path("runs/adaptation")
STARTS = {"scene": "embedded", "small": "small"}
ADAPTATION = (
    *(*TRAINING, "--schedule.epochs", "2", "--schedule.warmup-epochs", "0.2"),
    *("--optimizer.base-lr", "1e-3", "--augment.altered", "0.5", "--distillation.teacher", "embedded"),
)


def main() -> None:
    """Adapt both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fi", required=True, help="KIND:PATH of FI, several with commas between")
    parser.add_argument("--check", required=True, type=Path, help="output of uniemox data check --json")
    parser.add_argument("--splits", required=True, type=Path, help="file of splits with the images of the build")
    parser.add_argument("--unlabelled", required=True, help="KIND:PATH of further photographs, likewise")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    data = ("--data", given.fi, "--exclude", given.check, "--splits", given.splits)
    for name, start in STARTS.items():
        adapted = OUT / f"{name}-adapted"
        run = OUT / name
        made = OUT / f"{name}.onnx"
        words = ("--init", start, "--out", adapted, *data, "--monitor", "val", *ADAPTATION, *LOGIT_ADJUSTMENT)
        uniemox("finetune", *words, "--distillation.data", given.unlabelled, "--resume", makes=adapted / "model.onnx")
        # The adapted network is judged on larger images than it was trained on, like its parts.
        words = ("--method", "mean", "--init", adapted, "--out", run, *data, "--monitor", "val", *JUDGING)
        uniemox("finetune", *words, "--select", "last", "--resume", makes=run / "model.onnx")
        uniemox("export", run, "--out", made, *STORED[name], makes=made)
        words = ("--model", made, *data, "--split", "test", "--name", name)
        uniemox("evaluate", *words, makes=OUT / "evaluations" / f"{name}.json")


if __name__ == "__main__":
    main()
