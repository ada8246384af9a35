"""The passes of a fit as tasks of scikit-learn's callbacks, which version 1.9 brought."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dask_nmf.fitting.result import Result
from dask_nmf.iteration.loop import Step

Learn = Callable[[Callable[[Step], None] | None], Result]

_module: Any = import_module("sklearn.callback") if find_spec("sklearn.callback") else None
CallbackSupport: Any = object if _module is None else _module.CallbackSupportMixin


def report_passes(model: Any, X: Any, learn: Learn) -> Result:
    """Return the result of a fit whose passes are reported to the callbacks that the estimator has, if any.

    Parameters
    ----------
    model : the estimator; ``set_callbacks`` gave it callbacks.
    X : what is fitted, for the callbacks.
    learn : fits, and calls the function that it gets with the step of each pass.
    """
    if not getattr(model, "_skl_callbacks", None):
        return learn(model.callback)
    managed: Any = _module.with_callbacks(lambda estimator: _fit(estimator, X, learn))
    result: Result = managed(model)
    return result


def _fit(model: Any, X: Any, learn: Learn) -> Result:
    """Return the result of a fit, within the context of its callbacks."""
    whole = model._init_callback_context(max_subtasks=model.max_iter)
    whole.call_on_fit_task_begin(estimator=model, X=X)
    numbers = [0]

    def follow(step: Step) -> None:
        if step.number > numbers[-1]:  # of several starts, the first one that makes the pass
            numbers.append(step.number)
            one = whole.subcontext(task_name="pass")
            one.call_on_fit_task_begin(estimator=model, X=X)
            one.call_on_fit_task_end(estimator=model, X=X)
        if model.callback is not None:
            model.callback(step)

    result = learn(follow)
    whole.call_on_fit_task_end(estimator=model, X=X, reconstruction_attributes={})
    return result
