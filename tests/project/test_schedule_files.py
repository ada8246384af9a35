"""The files of the schedules give the same command, limits that fit together, and act upon exit codes."""

import ast
import re
import shlex

from dask.utils import parse_bytes
from support.schedules import DAG, RANK, cron_line, unit

from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode

HOURS = 3600


def dag_constants() -> dict[str, str]:
    """Those at the top of the DAG."""
    found = [node for node in ast.parse(DAG.read_text()).body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in found}


def test_commands_are_alike_and_known() -> None:
    in_cron = re.search(r"dask-nmf (fit .*?) 2>>", cron_line())
    assert in_cron
    _, _, in_unit = unit("ExecStart").partition("dask-nmf/bin/dask-nmf ")
    in_dag = dag_constants()["FIT"] + " --log-format json"
    assert in_cron[1] == in_unit == in_dag
    options = app.commands["fit"].make_context("fit", shlex.split(in_unit)[1:]).params
    assert options["n_components"] == RANK
    assert options["workers"] * parse_bytes(options["memory_limit"]) + 2**31 <= 6 * 2**30
    assert unit("MemoryMax") == "6G"
    assert options["time_limit"] < 6 * HOURS
    assert unit("TimeoutStartSec") == "6h"


def test_exit_codes_are_acted_upon() -> None:
    final = {ExitCode.USAGE, ExitCode.BAD_DATA}
    assert set(map(int, unit("RestartPreventExitStatus").split())) == final
    assert int(unit("SuccessExitStatus")) == ExitCode.TERMINATED
    (skipped,) = re.findall(r"skip_on_exit_code=(.*),$", DAG.read_text(), re.MULTILINE)
    assert set(ast.literal_eval(skipped)) == final
