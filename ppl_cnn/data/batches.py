"""Batches of images: endless and shuffled for training, once and in order for evaluation.

All data sets take one road: a prepared TFDS array_record data set, read at random positions into
grain. grain shuffles and batches positions; `ppl_cnn.data.images.Images` reads and decodes them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Integer

from ppl_cnn.data.augmentation import Augmentation, CentreView, RandomView, Shape, TenViews, View
from ppl_cnn.data.images import ImageBatch, Images, ViewsBatch
from ppl_cnn.data.reading import ReadAhead, Readers
from ppl_cnn.data.splits import ImageSplit
from ppl_cnn.errors import ArgumentError, MismatchError


def training_batches(
    split: ImageSplit,
    batch_size: int,
    seed: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    augment: str = "none",
    image_shape: Shape | None = None,
    short_side: int | None = None,
    threads: int | None = None,
    readers: int | None = 0,
) -> ReadAhead[ImageBatch]:
    """Endless batches, in a new order every epoch, without the remainder that fills no batch.

    Step s of a run is the same set of images in the same order however many processes read it:
    process p gets the p-th of `process_count` equal parts of the global batch. An epoch is
    `len(split) // batch_size` steps of distinct images.

    Args:
        split: the images.
        batch_size: images per step over all processes.
        seed: seed of the order and the augmentation; those of different seeds are unrelated.
        process_index: the index of this process.
        process_count: the number of processes that share every step.
        augment: the augmentation's text; see `ppl_cnn.data.augmentation.Augmentation`.
        image_shape: (row, col, channel) that photographs are brought to. Images that are stored
            with a fixed size keep it.
        short_side: the length in pixels that a photograph's short side is scaled to before the
            network's size is cropped; for None see `ppl_cnn.data.augmentation.RandomView`.
        threads: threads that read ahead, each a batch. The default is one for images of a fixed
            size, as Python's lock bounds the decoding of small ones, and one for each core for
            photographs.
        readers: processes of their own that read ahead, each with `threads` (by default 8 at most);
            0 reads in this process, None takes one for each 8 cores, for photographs and from 16
            cores on.

    Returns:
        An iterator of `ImageBatch`. Its `get_state()` is a small dict that JSON can hold;
        `set_state` resumes with the same bits, whatever the number of threads or processes.
        `close()` ends the readers.

    Raises:
        ArgumentError: `batch_size` exceeds the split or is not divisible by the processes, `seed`
            or `readers` is negative, the augmentation is unknown, or photographs lack an
            `image_shape`.
        MismatchError: the augmentation adds colour noise, and the images are grey.

    Examples:
        >>> from ppl_cnn.data import open_split, training_batches
        >>> split = open_split("fashion-embedded", "train[:500]")
        >>> batch = next(training_batches(split, batch_size=100, seed=0, augment="crop+flip"))
        >>> batch["image"].shape, batch["label"].shape
        ((100, 28, 28, 1), (100,))
    """
    import grain

    share = _share(batch_size, process_index, process_count)
    steps = len(split) // batch_size
    if steps == 0:
        raise ArgumentError(
            f"`batch_size={batch_size}` exceeds the {len(split)} images of {split.name}"
            f" {split.split}. Give {len(split)} or less.",
            argument="batch_size",
        )
    if seed < 0:
        raise ArgumentError(f"`seed={seed}` is negative. Give 0 or more.", argument="seed")
    # grain shuffles epoch e with seed + e, which would make seed 1 the second epoch of seed 0.
    order = int(np.random.SeedSequence(seed).generate_state(1)[0])
    positions = grain.MapDataset.range(len(split)).shuffle(order).batch(share, drop_remainder=True)
    own = positions.slice(slice(process_index, steps * process_count, process_count)).repeat()
    augmentation = Augmentation.parse(augment)
    if augmentation == Augmentation() and not split.varies:
        read = own.map(split.source.read)
    else:
        shape, short_side = _wanted(split, image_shape, short_side)
        if augmentation.colour and shape[2] != 3:
            raise MismatchError(
                f"`augment={augment}` adds colour noise, and the images of {split.name} are read in"
                " grey. Leave colour out."
            )
        view = partial(RandomView, augmentation, seed=seed, shape=shape, short_side=short_side)
        step = partial(_read_at_step, source=split.source, view=view, epoch=steps)
        read = own.map_with_index(step)
    return ReadAhead(read, split.source, Readers.chosen(readers, threads, varies=split.varies))


def batches(
    split: ImageSplit,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    image_shape: Shape | None = None,
    short_side: int | None = None,
    threads: int | None = None,
    readers: int | None = 0,
) -> ReadAhead[ImageBatch]:
    """All images once, in order, for evaluation; the last batch may be smaller.

    Process p of several gets the p-th of `process_count` equal parts of every batch. The last
    batch ends with the split: all processes get the same number of batches, but the last may be
    empty.

    Args:
        split: the images.
        batch_size: images per batch over all processes.
        process_index: the index of this process.
        process_count: the number of processes that share every batch.
        image_shape: (row, col, channel) of the centre that is cut from photographs. Images that are
            stored with a fixed size stay as they are.
        short_side: the length in pixels that a photograph's short side is scaled to before the
            cut; None takes the least that fills the shape.
        threads: threads that read ahead; see `training_batches`.
        readers: processes that read ahead; see there. None takes one for 5,000 images at most.

    Raises:
        ArgumentError: `batch_size` is not positive or not divisible by the processes, or
            photographs lack an `image_shape`.

    Examples:
        >>> from ppl_cnn.data import batches, open_split
        >>> split = open_split("fashion-embedded", "test[:25]")
        >>> [len(batch["label"]) for batch in batches(split, batch_size=10)]
        [10, 10, 5]
    """
    view = _centre(split, image_shape, short_side)
    chosen = Readers.chosen(readers, threads, varies=split.varies, images=len(split))
    return _in_order(split, batch_size, process_index, process_count, view, chosen)


def images_at(
    split: ImageSplit,
    positions: Integer[np.ndarray, " n"],
    *,
    image_shape: Shape | None = None,
    short_side: int | None = None,
) -> ImageBatch:
    """The images at some positions of a split, in that order, as `batches` gives them.

    Args:
        split: the images.
        positions: indices into the split.
        image_shape: (row, col, channel) of the centre that is cut from photographs.
        short_side: the length in pixels that a photograph's short side is scaled to before the
            cut; None takes the least that fills the shape.

    Raises:
        ArgumentError: photographs lack an `image_shape`.

    Examples:
        >>> import numpy as np
        >>> from ppl_cnn.data import images_at, open_split
        >>> split = open_split("fashion-embedded", "test[:25]")
        >>> images_at(split, np.asarray([3, 1]))["image"].shape
        (2, 28, 28, 1)
    """
    batch: ImageBatch = split.source.read(positions, _centre(split, image_shape, short_side))
    return batch


def ten_view_batches(
    split: ImageSplit,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    image_shape: Shape | None = None,
    short_side: int | None = None,
    threads: int | None = None,
    readers: int | None = 0,
) -> ReadAhead[ViewsBatch]:
    """All images once, in order, each in ten views: four corners, the centre, and these mirrored.

    Args:
        split: the images.
        batch_size: images per batch over all processes.
        process_index: the index of this process.
        process_count: the number of processes that share every batch.
        image_shape: (row, col, channel) of a view of photographs. Views of images that are stored
            with a fixed size have that size.
        short_side: the length in pixels that a photograph's short side is scaled to before the
            cuts, by default 8/7 of the shape's.
        threads: threads that read ahead; see `training_batches`.
        readers: processes that read ahead; see there. None takes one for 5,000 images at most.

    Raises:
        ArgumentError: `batch_size` is not positive or not divisible by the processes, or
            photographs lack an `image_shape`.
    """
    view = TenViews(*_wanted(split, image_shape, short_side))
    chosen = Readers.chosen(readers, threads, varies=split.varies, images=len(split))
    return _in_order(split, batch_size, process_index, process_count, view, chosen)


def _in_order(
    split: ImageSplit,
    batch_size: int,
    process_index: int,
    process_count: int,
    view: View | None,
    readers: Readers,
) -> ReadAhead[Any]:
    import grain

    share = _share(batch_size, process_index, process_count)
    starts = range(process_index * share, len(split) + process_index * share, batch_size)
    read = partial(_read_from, source=split.source, share=share, view=view)
    return ReadAhead(grain.MapDataset.source(starts).map(read), split.source, readers)


# These two are no closures, so that they can be sent to other processes.
def _read_at_step(
    step: int,
    places: Integer[np.ndarray, " n"],
    *,
    source: Images,
    view: Callable[..., RandomView],
    epoch: int,
) -> ImageBatch:
    """A step's images, in the views of its epoch; `epoch` is the number of steps in one."""
    batch: ImageBatch = source.read(places, view(epoch=step // epoch))
    return batch


def _read_from(start: int, *, source: Images, share: int, view: View | None) -> Any:
    places = range(start, min(start + share, len(source)))
    return source.read(places) if view is None else source.read(places, view)


def _centre(
    split: ImageSplit, image_shape: Shape | None, short_side: int | None
) -> CentreView | None:
    """The view that evaluation takes of an image; None for images of a fixed size."""
    return CentreView(*_wanted(split, image_shape, short_side)) if split.varies else None


def _wanted(
    split: ImageSplit, image_shape: Shape | None, short_side: int | None
) -> tuple[Shape, int | None]:
    """The shape of the views, and the short side that images are scaled to before."""
    rows, cols, channels = split.image_shape
    if rows is not None and cols is not None:
        return (rows, cols, channels), None
    if image_shape is None:
        raise ArgumentError(
            f"The images of {split.name} vary in size. Give the wanted `image_shape`, such as"
            " (224, 224, 3).",
            argument="image_shape",
        )
    return image_shape, short_side


def _share(batch_size: int, process_index: int, process_count: int) -> int:
    """Images of each batch that one process reads."""
    if not 0 <= process_index < process_count:
        raise ArgumentError(
            f"`process_index={process_index}` does not fit `process_count={process_count}`."
            f" Give 0 to {process_count - 1}.",
            argument="process_index",
        )
    if batch_size < 1 or batch_size % process_count:
        raise ArgumentError(
            f"`batch_size={batch_size}` cannot be divided among {process_count} process(es)."
            f" Give a positive multiple of {process_count}.",
            argument="batch_size",
        )
    return batch_size // process_count
