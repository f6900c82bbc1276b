"""Checkpoints of a training run."""

from pathlib import Path
from typing import Any

from ppl_cnn.inference.training_step import TrainState


class Checkpoints:
    """Orbax checkpoints of state and data iterator, written in the background."""

    def __init__(self, folder: Path) -> None:
        import orbax.checkpoint as ocp

        self._args = ocp.args
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_names=("state", "data")
        )

    def save(self, step: int, state: TrainState, loader: Any) -> None:
        """Starts to write; the arrays are copied first, so that the state may be donated."""
        args = self._args.Composite(
            state=self._args.StandardSave(state._asdict()),
            data=self._args.JsonSave(loader.get_state()),
        )
        self._manager.save(step, args=args)

    def restore(self, state: TrainState, loader: Any) -> TrainState:
        """The last complete checkpoint's state, or the given one; sets the loader's place."""
        step = self._manager.latest_step()
        if step is None:
            return state
        args = self._args.Composite(
            state=self._args.StandardRestore(state._asdict()), data=self._args.JsonRestore()
        )
        restored = self._manager.restore(step, args=args)
        loader.set_state(restored.data)
        return TrainState(**restored.state)

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.close()
