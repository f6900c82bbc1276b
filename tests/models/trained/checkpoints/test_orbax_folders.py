import numpy as np
import orbax.checkpoint as ocp
import pytest

from ppl_cnn.errors import FileError
from ppl_cnn.models.trained.checkpoints.orbax_folders import read_orbax

STATE = {"dense": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of one state as Orbax's guides save it; the later step has other numbers."""
    root = tmp_path_factory.mktemp("orbax")
    later = {"dense": {name: 2 * array for name, array in STATE["dense"].items()}}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(root / "plain", later)
    with ocp.CheckpointManager(root / "manager") as manager:
        for step, state in ((7, STATE), (10, later)):
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    with ocp.CheckpointManager(root / "composite") as manager:
        both = ocp.args.Composite(
            state=ocp.args.StandardSave(later), about=ocp.args.JsonSave({"a": 1})
        )
        manager.save(5, args=both)
        manager.wait_until_finished()
    return root


@pytest.mark.parametrize(
    "folder",
    ["plain", "manager", "manager/10", "manager/10/default", "composite", "composite/5/state"],
)
def test_every_folder_of_a_checkpoint_gives_its_last_state(folder, saved):
    found = read_orbax(saved / folder)
    assert set(found) == {"dense.kernel", "dense.bias"}
    np.testing.assert_array_equal(found["dense.kernel"], 2)


def test_a_step_of_ones_own_and_a_folder_without_any(saved, tmp_path, refused):
    np.testing.assert_array_equal(read_orbax(saved / "manager" / "7")["dense.kernel"], 1)
    with refused(tmp_path, "Orbax", "_METADATA", kind=FileError, path=tmp_path):
        read_orbax(tmp_path)
    (tmp_path / "7" / "default").mkdir(parents=True)
    (tmp_path / "7" / "default" / "_METADATA").write_text("{")
    with refused("Orbax", kind=FileError):
        read_orbax(tmp_path)
