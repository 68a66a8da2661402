use super::*;

/// Random bytes as blocks: every bit pattern of the integers; scales that are finite and not too far apart.
fn blocks(format: Format, count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let values: Vec<f32> = (0..count * format.block_len())
        .map(|_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            let x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            x * x * x * 5.0
        })
        .collect();
    let mut bytes = vec![0; format.bytes_for(values.len()).unwrap()];
    format.encode(&values, &mut bytes).unwrap();
    bytes
}

#[test]
fn unpacking_rounds_what_the_table_decodes() {
    if !crate::amx::granted() {
        return;
    }
    for format in Format::all() {
        let len = 256usize.next_multiple_of(format.block_len());
        let bytes = blocks(format, 2 * len / format.block_len(), 7);
        let mut expected = vec![0.0; 2 * len];
        format.decode(&bytes, &mut expected).unwrap();
        for part in [0, 1] {
            let mut got = vec![0xffffu16; len + 32];
            // SAFETY: AMX is granted, and AVX-512 with BF16 comes with it.
            unsafe { bf16(format, &bytes[range(format, part * len, len)], len, &mut got) };
            let expected = &expected[part * len..][..len];
            let largest = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            for (i, (g, e)) in got.iter().zip(expected).enumerate() {
                let g = f32::from_bits(u32::from(*g) << 16);
                // Half a unit in the last of eight bits, and what a fused multiply-add rounds differently.
                let bound = e.abs() / 256.0 + largest * 1e-6;
                assert!((g - e).abs() <= bound, "{format} element {i}: {g} is not {e}");
            }
            assert!(got[len..].iter().all(|x| *x == 0), "{format}");
        }
    }
}

#[test]
fn elementwise_formats_have_rests() {
    if !crate::amx::granted() {
        return;
    }
    for format in [Format::F32, Format::F16, Format::BF16] {
        for len in [1, 15, 16, 17, 31, 33, 63] {
            let bytes = blocks(format, len, 3);
            let mut expected = vec![0.0; len];
            format.decode(&bytes, &mut expected).unwrap();
            let mut got = vec![0xffffu16; 64];
            // SAFETY: as above.
            unsafe { bf16(format, &bytes, len, &mut got) };
            for (g, e) in got.iter().zip(&expected) {
                let g = f32::from_bits(u32::from(*g) << 16);
                assert!((g - e).abs() <= e.abs() / 256.0, "{format} {len}: {g} is not {e}");
            }
            assert!(got[len..].iter().all(|x| *x == 0));
        }
    }
}
