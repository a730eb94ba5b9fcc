"""`dllm2rec compare`: paired tests between runs on the same dataset."""

from dllm2rec.cli.options import Against, HeldOut, Json, MaskHistory, Runs, show, words_to_stderr


def compare(
    *,
    runs: Runs,
    split: HeldOut = "test",
    mask_history: MaskHistory = False,
    against: Against = None,
    json: Json = False,
) -> None:
    """Compare runs with their teacher and with training-free baselines in one table, with paired tests.

    Runs that differ in the seed alone become one row. Example: dllm2rec compare work/plain work/distilled
    """
    from dllm2rec.cli.tables import comparison_text
    from dllm2rec.comparison.comparing import compare as put_together
    from dllm2rec.workflow.runs import Run

    with words_to_stderr():
        found = [Run.load(path) for path in runs]
        comparison = put_together(found, split=split, mask_history=mask_history, against=against)
    show(comparison.model_dump(mode="json"), *comparison_text(comparison), as_json=json)
