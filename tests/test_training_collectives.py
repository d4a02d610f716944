"""What devices send to one another, of a text worked out by hand."""

from s3_jax.profiling.collectives import Collective, collectives

HLO = """\
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%turn (carry: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %carry = (s32[], f32[8,16]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%carry), index=1
  %all-reduce.1 = f32[8,16]{1,0:T(8,128)} all-reduce(%x), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
  ROOT %next = (s32[], f32[8,16]{1,0}) tuple(%i, %all-reduce.1)
}

%small (x: f32[2]) -> f32[2] {
  ROOT %all-reduce.2 = f32[2]{0} all-reduce(%x), to_apply=%add
}

%big (x: f32[2]) -> f32[2] {
  %gathered = bf16[64]{0} all-gather(%x), dimensions={0}
  ROOT %y = f32[2]{0} slice(%gathered)
}

ENTRY %main (p: f32[4,16]) -> f32[8,16] {
  %p = f32[4,16]{1,0} parameter(0)
  %start = (f32[4,16]{1,0}, f32[16,16]{1,0}) all-gather-start(%p), dimensions={0}
  %done = f32[16,16]{1,0} all-gather-done(%start)
  %loop = (s32[], f32[8,16]{1,0}) while(%init), body=%turn, backend_config={"known_trip_count":{"n":"5"}}
  %either = f32[2]{0} conditional(%index, %q, %q), branch_computations={%small, %big}
  ROOT %pair = (f32[3]{0}, pred[8]{0}) all-reduce(%u, %v), to_apply=%add
}
"""


def test_loops_branches_and_started_operations_count_as_they_run():
    assert collectives(HLO) == [
        Collective("all-reduce", 5 + 1, 5 * 8 * 16 * 4 + 3 * 4 + 8),
        Collective("all-gather", 1 + 1, 16 * 16 * 4 + 64 * 2),
    ]


def test_counters_of_a_started_permutation_are_not_sent():
    permuted = (
        "(f32[64,128]{1,0}, f32[64,128]{1,0}, u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1}}"
    )
    text = f"ENTRY %main (p: f32[64,128]) -> f32[64,128] {{\n  %start = {permuted}\n}}\n"
    assert collectives(text) == [Collective("collective-permute", 1, 64 * 128 * 4)]


def test_a_program_of_one_device_has_none():
    assert collectives("HloModule one\n\nENTRY %main (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}\n") == []
