"""Warnings about a fit in plain words, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dask_nmf.iteration.outcome import Outcome
from dask_nmf.report.facts.fit import FAINT, FitFacts
from dask_nmf.report.facts.words import percent
from dask_nmf.report.pages.page import Advice
from dask_nmf.report.sections.views import Look, are_pixels
from dask_nmf.wording import counted

LISTED = 8  # components that a warning names
CURES = {
    Outcome.MAX_ITER: "Fit again with a larger --max-iter; an unfinished run goes on where it is.",
    Outcome.TIME_LIMIT: "Run the same command again: it goes on after the last pass.",
    Outcome.DIVERGED: "Give a smaller --learning-rate, or another solver.",
    Outcome.NOT_CONVERGED: "Give another --seed, or --init random.",
    Outcome.UNOBSERVED: "Look at --missing and at the weights: no entry of V counts.",
}
UNSTABLE = 0.8  # likeness to bootstrap replicates below which a component is not to be relied on


def advice_for(facts: FitFacts, look: Look) -> list[Advice]:
    """Return what a reader of a report should know, the serious things first."""
    found = [
        *_about_end(facts),
        *_about_components(facts),
        *_about_stability(facts),
        *_about_missing(facts),
        *_about_rows(facts),
        *_about_images(facts, look),
    ]
    return sorted(found, key=lambda advice: not advice.serious)


def _about_end(facts: FitFacts) -> Iterator[Advice]:
    outcome = facts.record["outcome"]
    if outcome is not None and not Outcome(outcome).converged:
        cure = CURES.get(Outcome(outcome), "Look at the message above.")
        yield Advice("The fit ended before it had converged.", cure)
    if facts.relative_error is None and facts.record["loss"] is None:
        yield Advice(
            "The divergence is infinite: W H is 0 at an entry of V that is not 0.",
            "Leave out the factor that was given, or give one without zeros there.",
        )


def _about_components(facts: FitFacts) -> Iterator[Advice]:
    if facts.dead:
        yield Advice(
            f"{_components(facts.dead)} {_verb(facts.dead, 'is', 'are')} zero everywhere.",
            f"V has no use for so many components: take rank {facts.rank - len(facts.dead)}, or weaker "
            "penalties.",
        )
    faint = [one for one in np.flatnonzero(facts.shares < FAINT).tolist() if one not in facts.dead]
    if faint:
        verb = _verb(faint, "has", "have")
        yield Advice(
            f"{_components(faint)} {verb} less than {percent(FAINT)} of the part that is explained.",
            "A lower rank would explain nearly as much.",
            False,
        )
    alike = facts.alike()
    if alike:
        pairs = ", ".join(f"{one} and {other}" for one, other, _ in alike[:LISTED])
        more = f", and {counted(len(alike) - LISTED, 'more pair')}" if len(alike) > LISTED else ""
        yield Advice(
            f"Some components are nearly alike, in W and in H: {pairs}{more}.",
            "They share what one could do. Try a lower rank; dask-nmf select compares ranks.",
        )


def _about_stability(facts: FitFacts) -> Iterator[Advice]:
    if facts.likeness is None:
        return
    weak = np.flatnonzero(facts.likeness < UNSTABLE).tolist()
    if weak:
        verb = _verb(weak, "changes", "change")
        yield Advice(
            f"{_components(weak)} {verb} with the sample of rows: their bootstrap stability is below "
            f"{UNSTABLE}.",
            "Do not read much into single entries of them; see their standard errors.",
        )


def _about_missing(facts: FitFacts) -> Iterator[Advice]:
    measures = facts.record["measures"]
    for name, word in (("unobserved_rows", "row"), ("unobserved_columns", "column")):
        count = measures.get(name, 0)
        if count:
            verb = _verb(range(count), "is", "are")
            yield Advice(
                f"{counted(count, word, ',')} of V {verb} cold: no entry of "
                f"{'it' if count == 1 else 'them'} counted in the fit.",
                "Their factors are zero, and predictions for them are means. Leave them out, or observe some "
                "entries of them.",
            )


def _about_rows(facts: FitFacts) -> Iterator[Advice]:
    weights = facts.weights
    if weights.unexplained:
        share = percent(weights.unexplained / weights.rows)
        several = "rows of W are" if weights.unexplained > 1 else "row of W is"
        text = f"{weights.unexplained:,} {several} zero ({share}): W H says nothing about them."
        yield Advice(
            text, "Rows of V without an entry above 0 are of that kind, and rows unlike all others.", False
        )
    if weights.rows < facts.shape[0]:
        yield Advice(
            f"The numbers about W are from {weights.rows:,} evenly spaced rows of {facts.shape[0]:,}.",
            "All other numbers are exact.",
            False,
        )


def _about_images(facts: FitFacts, look: Look) -> Iterator[Advice]:
    noted, columns = facts.record["matrix"].get("image_shape"), facts.shape[1]
    if noted and look.image_shape is None and not are_pixels(columns, noted):
        shape = " x ".join(map(str, noted))
        yield Advice(
            f"Images of {shape} are noted with V, which has {counted(columns, 'column', ',')}: they are not "
            "those in its rows.",
            "Give --image-shape with their height and width, if its rows are images.",
            False,
        )


def _components(numbers: Sequence[int]) -> str:
    """Return the names of some components, as the subject of a sentence."""
    shown = ", ".join(str(number) for number in numbers[:LISTED])
    more = f" and {counted(len(numbers) - LISTED, 'other')}" if len(numbers) > LISTED else ""
    return f"Component {shown}" if len(numbers) == 1 else f"Components {shown}{more}"


def _verb(things: Sequence[int], one: str, several: str) -> str:
    return one if len(things) == 1 else several
