"""What a run leaves in its folder when it ends: the tuned weights, plots, a card, a summary."""

from collections.abc import Callable
from pathlib import Path

from mezo.models.load import kind_of
from mezo.runs.card import weights_card, write_card
from mezo.runs.folder import RunFolder
from mezo.runs.result import TrainResult
from mezo.runs.summary import Summary, write_summary
from mezo.training.monitors.measuring import Measuring, write_profile
from mezo.tuning import save
from mezo.util.profiling import WARM_UP


def leave(
    run: RunFolder,
    result: TrainResult,
    measuring: Measuring,
    *,
    artifacts: bool,
    note: Callable[[str], None],
) -> None:
    """Write the results of a finished run; its trajectory and its metrics exist already.

    artifacts: write weights, plots and card; False writes figures alone. measuring: has the trace, if there is one.
    note: called with messages for people.
    """
    if artifacts:
        card = weights_card(run, result, kind=kind_of(result.model.config, result.config.model))
        target = run.adapter if result.config.saves_adapter else run.model
        save(result.model, result.tokenizer, target, card)
        write_card(run, result)
        _draw(run, note)
    method = f"MeZO {result.config.tuning}"
    write_summary(run.path, Summary(method, result.seconds, result.peak_memory_bytes))
    if result.profile:
        write_profile(run.profile, result.profile, measuring.device, result.config.matmul)
    if not measuring.finish():
        note(f"no trace: it begins after step {WARM_UP}, and the run was over by then")


def write_plots(run: RunFolder) -> list[Path]:
    """`mezo.runs.plots.write_plots`, imported when it is used: matplotlib takes a second."""
    from mezo.runs import plots

    return plots.write_plots(run)


def _draw(run: RunFolder, note: Callable[[str], None]) -> None:
    """A picture that cannot be drawn ends no run; a full disk does, as everywhere."""
    try:
        write_plots(run)
    except (ImportError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        note(f"warning: the plots were not drawn ({said[:200]}); `mezo plot {run.path}` draws them")
