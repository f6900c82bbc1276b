import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft, special, stats

from ppl_cnn.models.references.filters import BandFilter, SpectralFilter, amplitudes
from ppl_cnn.models.references.transforms import NormalToUniform, Squash, push_forward

COLOURS = ((900.0, 500.0, 200.0), (500.0, 800.0, 300.0), (200.0, 300.0, 700.0))
MEAN = (100.0, 128.0, 31.5)
SHAPES = [(4, 4, 3), (3, 5, 3), (4, 6, 1), (1, 2, 1), (1, 1, 3)]


def spectral(exponent, channels):
    return SpectralFilter(exponent, COLOURS if channels == 3 else ((900.0,),))


def matrix(transform, shape):
    """The Jacobian of R at 0, (pixel, pixel)."""
    return matrix_at(transform, jnp.zeros(shape))


def matrix_at(push, z):
    jacobian = jax.jit(jax.jacfwd(lambda z: push(z)))(z)
    return np.asarray(jacobian, np.float64).reshape(-1, z.size)


def torus_covariance(exponent, covariance, rows, cols):
    """Covariance of all pairs of pixels from the definition, wave by wave."""
    waves = [
        (i, j)
        for i in range(-((rows - 1) // 2), rows // 2 + 1)
        for j in range(-((cols - 1) // 2), cols // 2 + 1)
    ]
    lowest = 1 / max(rows, cols)
    power = {(i, j): (np.hypot(i / rows, j / cols) or lowest) ** (-2 * exponent) for i, j in waves}
    total = sum(power.values())
    places = [(r, c) for r in range(rows) for c in range(cols)]
    correlation = [
        [
            sum(
                power[i, j] / total * np.cos(2 * np.pi * (i * (r - s) / rows + j * (c - d) / cols))
                for i, j in waves
            )
            for s, d in places
        ]
        for r, c in places
    ]
    return np.kron(correlation, covariance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("exponent", [0.0, pytest.param(1.0, marks=pytest.mark.long), 1.7])
def test_a_spectral_field_has_the_covariance_of_its_definition(shape, exponent):
    transform = spectral(exponent, shape[2])
    root = matrix(transform, shape)
    expected = torus_covariance(exponent, transform.covariance, *shape[:2])
    np.testing.assert_allclose(root @ root.T, expected, atol=900 * 2e-6)  # float32
    np.testing.assert_allclose(root, root.T, atol=30 * 1e-6)
    # Every pixel's channels have the colours' covariance itself.
    channels = shape[2]
    np.testing.assert_allclose(
        (root @ root.T)[:channels, :channels], np.asarray(transform.covariance), rtol=1e-5
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_spectral_fields_log_density_is_the_multivariate_normals(shape):
    transform = spectral(1.2, shape[2])
    distribution = push_forward(shape, [transform])
    covariance = torus_covariance(1.2, transform.covariance, *shape[:2])
    truth = stats.multivariate_normal(np.zeros(len(covariance)), covariance)

    @jax.jit
    def drawn(key):
        x, intermediates = distribution.sample_with_intermediates(key)
        return x, distribution.log_prob(x), distribution.log_prob(x, intermediates)

    for seed in range(3):
        x, *found = drawn(jax.random.key(seed))
        expected = truth.logpdf(np.asarray(x, np.float64).ravel())
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_crop_has_the_crops_block_of_the_covariance_wherever_it_lies():
    """Stationarity: exact, by the matrix of R's rows alone."""
    shape = (6, 5, 3)
    root = matrix(spectral(1.0, 3), shape)
    whole = (root @ root.T).reshape(*shape, *shape)
    crop = whole[1:4, 2:4, :, 1:4, 2:4, :]
    np.testing.assert_allclose(crop, whole[3:6, 0:2, :, 3:6, 0:2, :], atol=900 * 1e-6)
    draws = push_forward(shape, [spectral(1.0, 3)]).sample(jax.random.key(0), (20_000,))
    draws = np.asarray(draws[:, 1:4, 2:4].reshape(20_000, -1), np.float64)
    crop = crop.reshape(18, 18)
    # Entry (i, j) of a covariance of n normals has the variance (C_ii C_jj + C_ij^2)/n.
    error = np.sqrt((np.outer(np.diag(crop), np.diag(crop)) + crop**2) / len(draws))
    # The largest of 171 standard normals exceeds 5 with probability 1e-4.
    assert (np.abs(draws.T @ draws / len(draws) - crop) < 5 * error).all()


def test_the_amplitude_is_a_power_of_the_frequency():
    amplitude = amplitudes(8, 16, 1.3)
    np.testing.assert_allclose(np.mean(amplitude**2), 1)
    assert amplitude[0, 0] == amplitude[0, 1] == amplitude.max()  # lowest wave: 1/16
    np.testing.assert_allclose(amplitude[0, 2] / amplitude[0, 8], (0.5 / 0.125) ** 1.3)
    np.testing.assert_allclose(amplitude[3, 4], amplitude[-3, -4])


@pytest.mark.parametrize("shape", [(227, 227, 3), (28, 28, 1)])
def test_spectral_fields_of_networks_images_are_exact_to_float32(shape):
    transform = spectral(1.0, shape[2])
    distribution = push_forward(shape, [transform])
    z = jax.random.normal(jax.random.key(0), shape)
    x = jax.jit(lambda z: transform(z))(z)
    waves = np.fft.fft2(np.asarray(z, np.float64), axes=(0, 1))
    waves = waves * amplitudes(*shape[:2], 1.0)[:, :, None]
    values, vectors = np.linalg.eigh(np.asarray(transform.covariance))
    truth = np.fft.ifft2(waves, axes=(0, 1)).real @ (vectors * np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(x, truth, atol=2e-6 * np.abs(truth).max())
    # R's condition number, 200 for waves times 2 for colours, times float32's 6e-8 and log2 size.
    back, log_prob = jax.jit(lambda x: (transform.inv(x), distribution.log_prob(x)))(x)
    np.testing.assert_allclose(back, z, atol=2e-4)
    log_det = shape[2] * np.log(amplitudes(*shape[:2], 1.0)).sum()
    log_det += shape[0] * shape[1] * np.log(values).sum() / 2
    expected = stats.norm.logpdf(np.asarray(z, np.float64)).sum() - log_det
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "transform", [spectral(1.0, 3), Squash(MEAN), NormalToUniform(MEAN)], ids=lambda t: type(t)
)
def test_transforms_are_one_under_jit_vmap_and_batches(transform):
    z = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 3), np.float32)
    push = jax.jit(lambda z: transform(z))
    x = transform(jnp.asarray(z))
    one_by_one = np.stack([np.stack([push(image) for image in row]) for row in z])
    vmapped = jax.vmap(jax.vmap(push))(z)
    np.testing.assert_allclose(x, one_by_one, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(x, vmapped, rtol=1e-5, atol=1e-4)
    back, log_det = jax.jit(lambda z, x: (transform.inv(x), transform.log_abs_det_jacobian(z, x)))(
        z, x
    )
    np.testing.assert_allclose(back, z, atol=1e-4)
    assert log_det.shape == (2, 3) if isinstance(transform, SpectralFilter) else x.shape
    # A pytree without arrays, equal to its like and to no other.
    leaves, tree = jax.tree.flatten(transform)
    assert leaves == []
    assert jax.tree.unflatten(tree, leaves) == transform
    assert transform != Squash((1.0, 2.0, 3.0))
    assert transform != spectral(0.5, 3)


@pytest.mark.parametrize(
    "transforms",
    [
        [spectral(1.0, 3)],
        [NormalToUniform(MEAN)],
        [Squash(MEAN)],
        [spectral(1.0, 3), Squash(MEAN)],
    ],
    ids=lambda transforms: "-".join(type(each).__name__ for each in transforms),
)
def test_log_densities_are_the_change_of_variables(transforms):
    """log q(R(z)) = log N(z; 0, I) - log |det dR/dz|, by the whole Jacobian."""
    shape = (2, 3, 3)
    distribution = push_forward(shape, transforms)

    def push(z):
        for transform in transforms:
            z = transform(z)
        return z

    jacobian = jax.jit(jax.jacfwd(push))
    log_q = jax.jit(lambda z: distribution.log_prob(push(z)))
    for seed in range(3):
        z = jax.random.normal(jax.random.key(seed), shape)
        _, log_det = np.linalg.slogdet(np.asarray(jacobian(z), np.float64).reshape(18, 18))
        expected = stats.norm.logpdf(np.asarray(z, np.float64)).sum() - log_det
        np.testing.assert_allclose(log_q(z), expected, rtol=2e-5)


def test_uniform_pixels_are_uniform_and_nothing_is_outside():
    distribution = push_forward((2, 2, 3), [NormalToUniform(MEAN)])
    z = jax.random.normal(jax.random.key(0), (2, 2, 3))
    pixels = distribution.transforms[0](z) + jnp.asarray(MEAN)[None, None]
    np.testing.assert_allclose(pixels, 255 * special.ndtr(np.asarray(z)), atol=1e-4)
    inside = jnp.asarray([0.0, 1e-3, 7.0, 128.0, 254.0, 255.0])
    for pixel in inside:
        image = jnp.full((2, 2, 3), pixel) - jnp.asarray(MEAN)[None, None]
        np.testing.assert_allclose(distribution.log_prob(image), -12 * np.log(255), rtol=1e-6)
    for pixel in (-0.01, 255.01):
        image = jnp.full((2, 2, 3), 100.0).at[0, 1, 2].set(pixel) - jnp.asarray(MEAN)[None, None]
        with pytest.warns(UserWarning, match="Out-of-support"):
            assert distribution.log_prob(image) == -jnp.inf
        # Where NumPyro's validation is off, too.
        z = distribution.transforms[0].inv(image)
        assert jnp.isposinf(distribution.transforms[0].log_abs_det_jacobian(z, image)).any()


def test_squashing_is_the_formula_and_almost_the_identity_in_the_middle():
    transform = Squash((0.0,))
    u = np.linspace(-1000, 1255, 4511)
    image = jnp.asarray(u, jnp.float32)[:, None, None]
    pixel = np.asarray(transform(image), np.float64).ravel()
    exact = 10 * (np.logaddexp(0, u / 10) - np.logaddexp(0, (u - 255) / 10))
    np.testing.assert_allclose(pixel, exact, atol=1e-4)
    assert (np.diff(pixel) >= 0).all()
    assert pixel.min() >= 0
    assert pixel.max() <= 255
    assert np.abs(pixel - u)[(u >= 40) & (u <= 215)].max() < 0.2
    assert np.abs(pixel - u)[(u >= 20) & (u <= 235)].max() < 1.3
    slopes = jax.vmap(jax.grad(lambda u: transform(u[None, None, None])[0, 0, 0]))(image.ravel())
    assert jnp.isfinite(slopes).all()
    slope = special.expit(u / 10) * special.expit((255 - u) / 10) * -np.expm1(-25.5)
    log_slope = np.asarray(transform.log_abs_det_jacobian(image, transform(image))).ravel()
    np.testing.assert_allclose(slopes, slope, atol=1e-5)
    np.testing.assert_allclose(log_slope, np.log(slope), rtol=1e-5, atol=1e-6)
    middle = (u > -20) & (u < 275)
    back = np.asarray(transform.inv(transform(image))).ravel()
    np.testing.assert_allclose(back[middle], u[middle], atol=5e-3)  # at -20, slope 0.12


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(
    "transforms",
    [
        [NormalToUniform(MEAN)],
        [SpectralFilter(1.0, COLOURS), Squash(MEAN)],
        [SpectralFilter(0.0, COLOURS), Squash((0.0, 0.0, 255.0))],
    ],
)
def test_far_out_nothing_is_nan_or_infinite(transforms, sign):
    shape = (2, 2, 3)
    distribution = push_forward(shape, transforms)

    def push(z):
        intermediates = []
        for transform in transforms:
            intermediates.append([z, None])
            z = transform(z)
        return z, intermediates

    @jax.jit
    def found(z):
        x, intermediates = push(z)
        return [
            distribution.log_prob(x),
            distribution.log_prob(x, intermediates),
            jax.grad(lambda z: distribution.log_prob(*push(z)))(z),
            jax.grad(distribution.log_prob)(x),
            jax.grad(lambda z: jnp.sum(push(z)[0]))(z),
        ]

    for far in np.linspace(0, 12, 25):
        z = jnp.full(shape, sign * far, jnp.float32)
        assert all(jnp.isfinite(each).all() for each in found(z))


# The band of lowest waves.

BANDS = [(3, (8, 8, 3)), (4, (5, 9, 1)), (2, (2, 6, 3)), (1, (4, 3, 1)), (6, (6, 6, 1))]


def band(side, shape, exponent=1.2):
    return BandFilter(side, shape, exponent, COLOURS if shape[2] == 3 else ((900.0,),))


def band_root(transform):
    """R as a matrix, by scipy's inverse cosine transform: (pixel, wave)."""
    side, (rows, cols, channels) = transform.side, transform.shape
    lowest = 1 / (2 * max(rows, cols))
    amplitude = np.asarray(
        [
            [(np.hypot(i / (2 * rows), j / (2 * cols)) or lowest) ** -transform.exponent]
            for i in range(side)
            for j in range(side)
        ]
    ).reshape(side, side)
    amplitude *= np.sqrt(rows * cols / (amplitude**2).sum())
    values, vectors = np.linalg.eigh(np.asarray(transform.covariance))
    mixing = (vectors * np.sqrt(values)) @ vectors.T
    columns = []
    for basis in np.eye(side * side * channels).reshape(-1, side, side, channels):
        waves = np.zeros(transform.shape)
        waves[:side, :side] = amplitude[..., None] * (basis @ mixing)
        columns.append(fft.idctn(waves, norm="ortho", axes=(0, 1)).ravel())
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(("side", "shape"), BANDS)
@pytest.mark.parametrize("exponent", [0.0, 1.2])
def test_a_band_is_scipys_lowest_waves(side, shape, exponent):
    transform = band(side, shape, exponent)
    latent = (side, side, shape[2])
    root = band_root(transform)
    np.testing.assert_allclose(matrix(transform, latent), root, atol=2e-5 * np.abs(root).max())
    # In the mean over the image, a pixel's channels have the colours' covariance.
    pixels = root.reshape(-1, shape[2], root.shape[1])
    covariance = np.einsum("pcw,pdw->cd", pixels, pixels) / len(pixels)
    np.testing.assert_allclose(covariance, transform.covariance, rtol=1e-10)
    # Nothing of another field's waves, and all of z.
    z = jax.random.normal(jax.random.key(0), (2, *latent))
    field, back = jax.jit(lambda z: (transform(z), transform.inv(transform(z))))(z)
    waves = fft.dctn(np.asarray(field, np.float64), norm="ortho", axes=(1, 2))
    waves[:, :side, :side] = 0
    assert np.abs(waves).max() < 1e-3
    np.testing.assert_allclose(back, z, atol=2e-4)
    assert transform.forward_shape((7, *latent)) == (7, *shape)
    assert transform.inverse_shape((7, *shape)) == (7, *latent)


@pytest.mark.parametrize(("side", "shape"), BANDS)
def test_a_bands_inverse_is_that_of_the_nearest_field_in_it(side, shape):
    transform = band(side, shape)
    field = np.random.default_rng(0).normal(0, 30, shape)
    found = jax.jit(lambda field: transform(transform.inv(field)))(field.astype(np.float32))
    waves = fft.dctn(field, norm="ortho", axes=(0, 1))
    waves[side:], waves[:, side:] = 0, 0
    nearest = fft.idctn(waves, norm="ortho", axes=(0, 1))
    np.testing.assert_allclose(found, nearest, atol=1e-3)


@pytest.mark.parametrize(("side", "shape"), BANDS)
def test_a_bands_fields_have_the_normals_density_in_it_and_none_beside_it(side, shape):
    transform = band(side, shape)
    distribution = push_forward((side, side, shape[2]), [transform])
    assert distribution.event_shape == shape
    root = band_root(transform)
    # On the band, with orthonormal coordinates U: x = U y, y ~ N(0, U^T R R^T U).
    U, singular, _ = np.linalg.svd(root, full_matrices=False)
    x = jax.jit(lambda key: distribution.sample(key, (4,)))(jax.random.key(0))
    log_q = jax.jit(distribution.log_prob)
    for each in np.asarray(x, np.float64).reshape(4, -1):
        y = U.T @ each / singular
        expected = stats.norm.logpdf(y).sum() - np.log(singular).sum()
        actual = log_q(each.reshape(shape).astype(np.float32))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)
    if side < max(shape[:2]):
        beside = x[0] + jax.random.normal(jax.random.key(1), shape)
        assert log_q(beside) == -jnp.inf


def test_a_band_of_a_networks_image_is_exact_to_float32():
    transform = band(32, (192, 192, 3))
    z = jax.random.normal(jax.random.key(0), (32, 32, 3))
    x = jax.jit(lambda z: transform(z))(z)
    np.testing.assert_allclose(transform.inv(x), z, atol=2e-4)
    assert transform == band(32, (192, 192, 3)) != band(31, (192, 192, 3))
    leaves, tree = jax.tree.flatten(transform)
    assert jax.tree.unflatten(tree, leaves) == transform
    vmapped = jax.vmap(jax.vmap(lambda z: transform(z)))(jnp.stack([z, -z])[:, None])
    np.testing.assert_allclose(vmapped[1, 0], -x, atol=1e-3)
