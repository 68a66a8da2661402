//! Every path and instruction set against a naive product in f64.

use proptest::prelude::*;

use super::double::gemm_f64_with;
use super::*;
use crate::isa::available;

/// Numbers in -1..1 from a small generator.
pub(crate) fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// How an operand of rows × cols lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Rows side by side, with a gap behind each.
    Rows(usize),
    /// Columns side by side, with a gap behind each.
    Cols(usize),
    /// Both strides greater than 1.
    Spread,
    /// One row for all.
    RepeatRow,
    /// One column for all.
    RepeatCol,
}

const LAYOUTS: [Layout; 7] = [
    Layout::Rows(0),
    Layout::Cols(0),
    Layout::Rows(3),
    Layout::Cols(5),
    Layout::Spread,
    Layout::RepeatRow,
    Layout::RepeatCol,
];

impl Layout {
    fn strides(self, rows: usize, cols: usize) -> (usize, usize) {
        match self {
            Layout::Rows(gap) => (cols + gap, 1),
            Layout::Cols(gap) => (1, rows + gap),
            Layout::Spread => (cols * 3 + 1, 3),
            Layout::RepeatRow => (0, 1),
            Layout::RepeatCol => (1, 0),
        }
    }
}

struct Case {
    isa: Isa,
    m: usize,
    n: usize,
    k: usize,
    a: Layout,
    b: Layout,
    gap: usize,
    accumulate: bool,
}

/// Runs a case and checks every element against the bound that the module states, and the gaps for being untouched.
fn check(case: &Case) -> Result<(), String> {
    let Case { isa, m, n, k, gap, accumulate, .. } = *case;
    let ((a_rs, a_cs), (b_rs, b_cs)) = (case.a.strides(m, k), case.b.strides(k, n));
    // Exactly as long as needed, so that reading beyond an operand is found by the checks (or by a sanitizer).
    let a = numbers(extent(m, a_rs, k, a_cs).unwrap(), 1);
    let b = numbers(extent(k, b_rs, n, b_cs).unwrap(), 2);
    let c_rs = n + gap;
    let before = numbers(extent(m, c_rs, n, 1).unwrap(), 3);
    let mut c = before.clone();
    let (a_ref, b_ref) = (MatRef { data: &a, rs: a_rs, cs: a_cs }, MatRef { data: &b, rs: b_rs, cs: b_cs });
    gemm_with(isa, m, n, k, a_ref, b_ref, &mut c, c_rs, accumulate);
    let name = || format!("{isa} {m}×{n}×{k} a {:?} b {:?} gap {gap} accumulate {accumulate}", case.a, case.b);
    for i in 0..m {
        for j in 0..n {
            let at = i * c_rs + j;
            let old = if accumulate { f64::from(before[at]) } else { 0.0 };
            let (mut sum, mut magnitude) = (old, old.abs());
            for p in 0..k {
                let x = f64::from(a[i * a_rs + p * a_cs]) * f64::from(b[p * b_rs + j * b_cs]);
                sum += x;
                magnitude += x.abs();
            }
            let bound = (k + 2) as f64 * 2f64.powi(-24) * magnitude;
            if (f64::from(c[at]) - sum).abs() > bound || !c[at].is_finite() {
                return Err(format!("{}: c[{i},{j}] = {}, expected {sum} ± {bound}", name(), c[at]));
            }
        }
        if i + 1 < m && c[i * c_rs + n..(i + 1) * c_rs] != before[i * c_rs + n..(i + 1) * c_rs] {
            return Err(format!("{}: the gap behind row {i} was written", name()));
        }
    }
    Ok(())
}

#[test]
fn sizes_around_the_tiles() {
    for isa in available() {
        for m in [1, 2, 4, 5, 8, 9, 13, 14, 15, 28, 29, 70] {
            for n in [1, 3, 8, 9, 15, 16, 17, 31, 32, 33, 64, 70] {
                for k in [1, 2, 5, 23, 24, 31, 32, 33, 70] {
                    let (a, b) = (LAYOUTS[(m + k) % 5], LAYOUTS[(n + k) % 5]);
                    check(&Case { isa, m, n, k, a, b, gap: m % 3, accumulate: (m + n + k) % 2 == 0 }).unwrap();
                }
            }
        }
    }
}

#[test]
fn every_pair_of_layouts() {
    for isa in available() {
        for (m, n, k) in [(3, 37, 41), (37, 3, 41), (37, 41, 29), (2, 70, 35)] {
            for a in LAYOUTS {
                for b in LAYOUTS {
                    for accumulate in [false, true] {
                        check(&Case { isa, m, n, k, a, b, gap: 2, accumulate }).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn several_passes_blocks_and_threads() {
    for isa in available() {
        // More than one pass over the depth; many row blocks; few rows with many columns (packed by columns).
        for (m, n, k) in [(70, 70, 1000), (700, 40, 90), (20, 900, 400), (9, 130, 800), (300, 300, 10)] {
            for (a, b) in [(LAYOUTS[0], LAYOUTS[1]), (LAYOUTS[1], LAYOUTS[0]), (LAYOUTS[4], LAYOUTS[4])] {
                check(&Case { isa, m, n, k, a, b, gap: 1, accumulate: m == 70 }).unwrap();
            }
        }
    }
}

#[test]
fn empty_dimensions() {
    let mut c = vec![7.0; 6];
    let none = MatRef { data: &[], rs: 1, cs: 1 };
    gemm(0, 3, 5, none, MatRef::row_major(&[0.0; 15], 3), &mut c, 3, false);
    assert_eq!(c, [7.0; 6]);
    gemm(2, 3, 0, none, none, &mut c, 3, true);
    assert_eq!(c, [7.0; 6]);
    gemm(2, 2, 0, none, none, &mut c, 4, false);
    assert_eq!(c, [0.0, 0.0, 7.0, 7.0, 0.0, 0.0]);
}

#[test]
fn operands_out_of_bounds_are_refused() {
    let run = |a: MatRef<'_>, b: MatRef<'_>, c_len: usize, c_rs: usize| {
        let mut c = vec![0.0; c_len];
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gemm(4, 5, 6, a, b, &mut c, c_rs, false))).is_ok()
    };
    let (a, b) = (vec![0.0; 24], vec![0.0; 30]);
    let (good_a, good_b) = (MatRef::row_major(&a, 6), MatRef::row_major(&b, 5));
    assert!(run(good_a, good_b, 20, 5));
    assert!(!run(MatRef::row_major(&a[1..], 6), good_b, 20, 5));
    assert!(!run(good_a, MatRef { data: &b, rs: 5, cs: 2 }, 20, 5));
    assert!(!run(good_a, MatRef { data: &b, rs: usize::MAX, cs: 2 }, 20, 5));
    assert!(!run(good_a, good_b, 19, 5));
    assert!(!run(good_a, good_b, 20, 4), "overlapping rows of c");
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let (n, k) = (77, 1000);
    for isa in available() {
        for (b_rs, b_cs, few) in [(1, k, dots::MOST), (n, 1, few::FEW_AXPY)] {
            let (a, b) = (numbers(90 * k, 4), numbers(n * k, 5));
            let product = |first: usize, m: usize| {
                let mut c = vec![0.0; m * n];
                let b = MatRef { data: &b, rs: b_rs, cs: b_cs };
                gemm_with(isa, m, n, k, MatRef::row_major(&a[first * k..], k), b, &mut c, n, false);
                c
            };
            for range in [few + 1..61, 1..few + 1] {
                let first = product(2, range.start);
                for m in range {
                    let c = product(2, m);
                    assert_eq!(first[..n], c[..n], "{isa}: row 0 of {m}");
                    if m > few + 2 {
                        // The same row at another place.
                        assert_eq!(c[2 * n..3 * n], product(4, few + 1)[..n], "{isa}: row 2 of {m}");
                    }
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (m, n, k) = (150, 170, 800);
    let (a, b) = (numbers(m * k, 6), numbers(n * k, 7));
    let product = |threads: usize, m: usize| {
        let mut c = vec![0.0; m * n];
        run(
            isa(),
            threads,
            m,
            n,
            k,
            MatRef::row_major(&a, k),
            Right::Floats(MatRef { data: &b, rs: 1, cs: k }),
            &mut c,
            n,
            false,
        );
        c
    };
    for m in [5, 30, 150] {
        let one = product(1, m);
        for threads in [2, 3, 8] {
            assert_eq!(one, product(threads, m), "{threads} threads, {m} rows");
        }
    }
}

#[test]
fn batches_equal_single_products() {
    for (batch, m, n, k, shared_b) in [
        (7, 5, 6, 7, false),
        (40, 33, 34, 35, false),
        (3, 200, 100, 64, false),
        (6, 10, 40, 30, true),
        (1, 4, 4, 4, false),
    ] {
        let (a, b) = (numbers(batch * m * k, 8), numbers(batch * n * k, 9));
        let b_bs = if shared_b { 0 } else { n * k };
        for accumulate in [false, true] {
            let mut c = numbers(batch * (m * n + 3), 10);
            let mut expected = c.clone();
            let (am, bm) = (MatRef::row_major(&a, k), MatRef { data: &b, rs: 1, cs: k });
            let c_bs = if shared_b { m * n } else { m * n + 3 };
            gemm_batch(batch, m, n, k, am, m * k, bm, b_bs, &mut c, c_bs, n, accumulate);
            for i in 0..batch {
                let (am, bm) = (MatRef { data: &a[i * m * k..], ..am }, MatRef { data: &b[i * b_bs..], ..bm });
                gemm(m, n, k, am, bm, &mut expected[i * c_bs..], n, accumulate);
            }
            assert!(
                c.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-4),
                "batch {batch} of {m}×{n}×{k}, accumulate {accumulate}"
            );
        }
    }
}

#[test]
fn f64_product() {
    for isa in available() {
        for (m, n, k) in [(1, 1, 1), (5, 17, 33), (4, 16, 256), (70, 50, 600), (3, 0, 2), (3, 2, 0)] {
            for (a_t, b_t) in [(false, false), (true, false), (false, true)] {
                let a: Vec<f64> = numbers(m * k, 11).into_iter().map(|x| f64::from(x) * 1.000000001).collect();
                let b: Vec<f64> = numbers(n * k, 12).into_iter().map(f64::from).collect();
                let (a_rs, a_cs) = if a_t { (1, m) } else { (k, 1) };
                let (b_rs, b_cs) = if b_t { (1, k) } else { (n, 1) };
                let mut c = vec![1.0; m * n];
                let (am, bm) = (MatRef64 { data: &a, rs: a_rs, cs: a_cs }, MatRef64 { data: &b, rs: b_rs, cs: b_cs });
                gemm_f64_with(isa, m, n, k, am, bm, &mut c, n, true);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|p| a[i * a_rs + p * a_cs] * b[p * b_rs + j * b_cs]).sum();
                        assert!((c[i * n + j] - 1.0 - sum).abs() <= 1e-13 * (k + 2) as f64, "{isa} {m}×{n}×{k}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_and_layout(
        isa in 0..8usize, m in 1..71usize, n in 1..71usize, k in 1..71usize,
        a in 0..7usize, b in 0..7usize, gap in 0..4usize, accumulate: bool,
    ) {
        let sets: Vec<Isa> = available().collect();
        let case = Case { isa: sets[isa % sets.len()], m, n, k, a: LAYOUTS[a], b: LAYOUTS[b], gap, accumulate };
        prop_assert_eq!(check(&case), Ok(()));
    }
}
