"""What the first stages of a generator's training make: an autoencoder's decoder, without refiner.

`python -m ppl_cnn.generator ... --adversarial 1steps` stops there: in that step the critic learns
alone. The last stage of a longer run changes the decoder as well.
"""

import jax

from ppl_cnn.models.generators.loading import load_generator
from ppl_cnn.models.generators.refined_flow import RefinedFlow
from ppl_cnn.models.references.generator import GeneratorReference

UNREFINED = ("vae", "vae-flow")
"""References by their names here. vae: the decoder's images of latents of N(0, I), the prior that
a variational autoencoder is trained with. vae-flow: those of the flow's latents."""


def unrefined(name, folder):
    """One of `UNREFINED`.

    Args:
        name: which.
        folder: of a run of ppl_cnn.generator, with the sizes that are its defaults.
    """
    generator = load_generator(folder)
    sizes, params = RefinedFlow(image_shape=generator.image_shape), generator.params

    def image(z):
        u = sizes.flow.to_data(params, z[None]) if name == "vae-flow" else z[None]
        return 255 * jax.nn.sigmoid(sizes.smooth(params, u)[0])

    return GeneratorReference.of(image, latent_shape=(sizes.latent,), name=name)
