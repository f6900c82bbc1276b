import io

import numpy as np
from PIL import Image

from ppl_cnn.data.sources.grey_images import encode_png


def test_png_is_lossless():
    image = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(image)))), image)
