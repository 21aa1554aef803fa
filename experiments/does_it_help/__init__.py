"""Does the paper's objective help over distillation alone? PLAN.md has the question, `python -m` runs it."""
