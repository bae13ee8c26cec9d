"""`--log tensorboard`: event files in the RUN's folder `tensorboard`."""

from collections.abc import Mapping

from recycle_cli.runs.trackers.contract import About


class TensorBoard:
    """Writes event files. TensorBoard hides the steps of an interrupted training that the resumed one does again."""

    key = None
    where = ""

    def __init__(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = about.folder / "tensorboard"
        resumed = folder.exists()
        self._writer = SummaryWriter(str(folder), purge_step=about.steps + 1 if resumed else None)
        if not resumed:
            lines = [f"| {name} | {value} |" for name, value in about.settings.items()]
            self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *lines]))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """A scalar for each figure."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, finished: bool) -> None:
        """Flush the file."""
        self._writer.close()
