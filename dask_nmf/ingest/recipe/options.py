"""`Steps`: which steps turn the values of a source into V, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass, fields

SCALES = ("std", "max")
RANKINGS = ("variance", "seurat", "sum")
MEDIAN = "median"


@dataclass(frozen=True)
class Steps:
    """The steps of a recipe, in the order in which they run.

    Attributes
    ----------
    min_count : columns that are > 0 in fewer rows are dropped (``min_df`` of scikit-learn)
    max_frequency : columns that are > 0 in a greater share of the rows are dropped (``max_df``)
    normalize_rows : the sum to which each row is scaled, or "median": the median of the sums that are > 0
    log1p : whether x becomes ln(1 + x)
    top_columns : how many columns are kept, those that ``top_by`` ranks first
    top_by : one of `RANKINGS`
    tfidf : whether columns are weighted by ln((1 + m) / (1 + rows > 0)) + 1, and rows have norm 1 afterwards
    scale_columns : "std" or "max": what each column is divided by; nothing is subtracted
    """

    min_count: int | None = None
    max_frequency: float | None = None
    normalize_rows: float | str | None = None
    log1p: bool = False
    top_columns: int | None = None
    top_by: str = "variance"
    tfidf: bool = False
    scale_columns: str | None = None

    def __post_init__(self) -> None:
        """Refuse parameters out of their bounds."""
        for name, choices in (("scale_columns", SCALES), ("top_by", RANKINGS)):
            given = getattr(self, name)
            if given is not None and given not in choices:
                raise ValueError(f"{name} is {given!r}; give one of {', '.join(choices)}")
        for name in ("min_count", "top_columns"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ValueError(f"{name} is {given}; give a whole number >= 1")
        if self.max_frequency is not None and not 0 < self.max_frequency <= 1:
            raise ValueError(f"max_frequency is {self.max_frequency}; give a share of the rows: > 0 and <= 1")
        if isinstance(self.normalize_rows, str):
            object.__setattr__(self, "normalize_rows", _target(self.normalize_rows))
        elif self.normalize_rows is not None and not 0 < self.normalize_rows < float("inf"):
            raise ValueError(f"normalize_rows is {self.normalize_rows}; give 'median' or a number > 0")

    @property
    def given(self) -> list[str]:
        """Return the names of the parameters that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]

    @property
    def selects(self) -> bool:
        """Return whether columns may be dropped."""
        return any(part is not None for part in (self.min_count, self.max_frequency, self.top_columns))

    @property
    def fitted(self) -> bool:
        """Return whether a step has to look at all rows before it can begin."""
        return self.selects or self.tfidf or self.scale_columns is not None or self.normalize_rows == MEDIAN


@dataclass(frozen=True)
class Counting:
    """How the words of texts are counted, as scikit-learn's ``CountVectorizer`` does with these parameters.

    Attributes
    ----------
    stop_words : "english" to leave out scikit-learn's list of English words
    ngrams : the least and the greatest number of words that follow one another and count as one
    hash_columns : the number of columns of a ``HashingVectorizer`` with ``alternate_sign=False, norm=None``
    """

    stop_words: str | None = None
    ngrams: tuple[int, int] = (1, 1)
    hash_columns: int | None = None

    def __post_init__(self) -> None:
        """Refuse parameters out of their bounds."""
        object.__setattr__(self, "ngrams", tuple(self.ngrams))
        if self.stop_words not in (None, "english"):
            raise ValueError(f"stop_words is {self.stop_words!r}; give 'english', or leave it out")
        if not (len(self.ngrams) == 2 and 1 <= self.ngrams[0] <= self.ngrams[1]):
            raise ValueError(f"ngrams is {self.ngrams}; give two numbers, 1 <= MIN <= MAX, such as 1 2")
        if self.hash_columns is not None and not 1 <= self.hash_columns < 2**31:
            raise ValueError(f"hash_columns is {self.hash_columns}; give a number >= 1 and < 2^31")

    @property
    def given(self) -> list[str]:
        """Return the names of the parameters that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


def _target(text: str) -> float | str:
    """Return the sum of rows that a text says; raise `ValueError` unless it is "median" or a number > 0."""
    try:
        target = float(text)
    except ValueError:
        target = 0.0
    if text != MEDIAN and not 0 < target < float("inf"):
        raise ValueError(f"normalize_rows is {text!r}; give 'median' or a number > 0")
    return MEDIAN if text == MEDIAN else target
