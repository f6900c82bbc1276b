"""What is read off programs whose operations are known."""

import jax
import jax.numpy as jnp
from jax import lax

from ppl_cnn.machines.compiled import Memory, Program

NONE = Memory(0, 0, 0)
GPU_TEXT = """HloModule step, is_scheduled=true

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %d = f64[8]{0} convert(%p)
}

%inner (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%a), index=1
  %c = f32[8]{0} custom-call(%x), window={lhs_dilate=2}, custom_call_target="__cudnn$convForward"
  %f = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[8]{0}) tuple(%x, %f)
}

%outer (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]{0}) parameter(0)
  ROOT %w = (s32[], f32[8]{0}) while(%a), condition=%c1, body=%inner
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %s = f32[8]{0} scatter(%p, %p, %p), update_window_dims={}, to_apply=%add
  %u = f32[8]{0} scatter(%p, %p, %p), update_window_dims={}, unique_indices=true, to_apply=%add
  %r = f32[8]{0} all-reduce-start(%s), replica_groups={}, to_apply=%add
  %w = (s32[], f32[8]{0}) while(%r), condition=%c2, body=%outer
  ROOT %g = f32[8]{0} get-tuple-element(%w), index=1
}
"""


def test_a_gpus_program_is_read():
    program = Program(GPU_TEXT, NONE, "gpu")
    assert program.innermost == "inner"
    assert program.launches("inner") == 2
    assert program.launches() == 4 + 1 + 2
    assert program.collectives == {"all-reduce": 1}
    assert program.disordered == {"scatter": 1}
    assert program.tried_out == 1
    assert program.unwanted == {"float64": 1, "convolution of a gradient with zeros between": 1}
    said = "\n".join(program.remarks())
    for fact in ("1 all-reduce", "1 scatter", "by trying", "--deterministic", "slow", "float64"):
        assert fact in said
    assert "scatter" not in "\n".join(Program(GPU_TEXT, NONE, "cpu").remarks())


def test_the_memory_of_a_real_program_is_xlas():
    def grow(x):
        return lax.fori_loop(0, 10, lambda i, x: jnp.sin(x) @ x, x)

    compiled = jax.jit(grow).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32)).compile()
    program = Program.of(compiled, "cpu")
    assert program.memory.arguments == 64 * 64 * 4
    assert program.innermost != "ENTRY"
    assert not program.unwanted
    assert program.launches() > program.launches(program.innermost) > 0


def test_memory_is_said_in_units_that_fit():
    text = str(Memory(arguments=2**21, temporaries=2**30, outputs=0))
    assert text == "1.00 GiB, of which 2.0 MiB arguments and 1.00 GiB temporaries"


def test_what_xla_leaves_out_of_its_count_is_what_loops_repeat():
    """Five products, each of 2 * 8 * 3 * 4 operations, in a loop that runs six times in another."""

    def product(total, each):
        return total + jnp.sum(each @ jnp.ones((4, 3))), None

    def outer(total, _):
        return lax.scan(product, total, jnp.full((5, 8, 4), total))[0], None

    def program(start):
        return lax.scan(outer, start, length=6)[0]

    compiled = jax.jit(program).lower(jnp.ones(())).compile()
    read, each = Program.of(compiled, "cpu"), 2 * 8 * 3 * 4
    assert read.uncounted() == (30 - 1) * each
    assert read.uncounted(6) == (5 - 1) * each
