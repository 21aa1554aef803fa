"""Does continuing a saturated start with the full objective help? PLAN.md has the question, the rule and the arms."""
