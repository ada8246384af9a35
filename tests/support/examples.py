"""The folder of the examples, and checks of their output."""

import re
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def assert_recommends(output: str) -> None:
    """Check that W H predicts held-out ratings better than means do, and that three users get five items."""
    errors = re.findall(r"^ +(\d+\.\d+)  (.*)$", output, re.MULTILINE)[-3:]
    assert [name for _, name in errors][::2] == ["the mean of all", "W H"]
    of_mean, of_biases, ours = (float(error) for error, _ in errors)
    assert ours < 0.95 * of_biases < of_mean
    offers = re.findall(r"^user \d+: (.*)$", output, re.MULTILINE)
    assert [offer.count("item") for offer in offers] == [5, 5, 5]
