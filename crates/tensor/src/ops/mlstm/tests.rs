use super::{MlstmInputs, chunked};
use crate::ops::testing::{check_against_reference, difference, noise};
use crate::{DType, Result, Tensor, no_grad};

/// q, k, v, i, f, memory, m.
fn inputs([b, t, h, k, v]: [usize; 5]) -> Vec<Tensor> {
    vec![
        noise(&[b, t, h, k], 1),
        noise(&[b, t, h, k], 2),
        noise(&[b, t, h, v], 3),
        noise(&[b, t, h], 4),
        noise(&[b, t, h], 5),
        noise(&[b, h, k, v + 1], 6),
        noise(&[b, h], 7),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Stepping,
    Chunked,
    Reference,
}

/// Input gates are spread over `±depth`.
fn run(x: &[Tensor], depth: f64, way: Way) -> Result<(Tensor, [Tensor; 2])> {
    let (i, f) = (x[3].mul_scalar(depth)?, x[4].mul_scalar(4.0)?.add_scalar(2.0)?);
    let inputs = MlstmInputs { k: &x[1], v: &x[2], i: &i, f: &f, state: Some((&x[5], &x[6])), eps: 1e-6 };
    match way {
        Way::Stepping => no_grad(|| x[0].mlstm(&inputs)),
        Way::Chunked => chunked::forward(&x[0], &inputs, x[0].check_mlstm(&inputs)?.1),
        Way::Reference => x[0].mlstm_reference(&inputs),
    }
}

#[test]
fn chunks_and_steps_equal_the_reference() {
    for sizes in [[1, 1, 1, 1, 1], [2, 9, 2, 5, 3], [1, 150, 2, 8, 16], [2, 64, 1, 4, 40]] {
        // e^±60 would overflow without the stabiliser. Numerator and denominator may then cancel nearly to nothing, so
        // that rounding is taken out of the comparison of chunks.
        for (depth, dtype, bound) in [(1.0, DType::F32, 2e-5), (60.0, DType::F64, 1e-7)] {
            let x: Vec<Tensor> = inputs(sizes).iter().map(|x| x.to_dtype(dtype).unwrap()).collect();
            let single = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
            let (y, [memory, m]) = run(&x, depth, Way::Reference).unwrap();
            for way in [Way::Stepping, Way::Chunked] {
                let (y2, [memory2, m2]) = run(&x, depth, way).unwrap();
                let d = [(&y2, &y), (&memory2, &memory), (&m2, &m)].map(|(a, b)| difference(&single(a), &single(b)));
                assert!(d.iter().all(|&d| d < bound), "{sizes:?} {depth} {way:?}: {d:?}");
            }
            let x = inputs(sizes);
            let (steps, chunks) = (run(&x, depth, Way::Stepping).unwrap().0, run(&x, depth, Way::Chunked).unwrap().0);
            assert!(
                difference(&steps, &single(&y)) < 2e-5 * depth as f32
                    && difference(&chunks, &single(&y)) < 2e-5 * depth as f32
            );
        }
    }
}

#[test]
fn gradients_equal_those_of_the_reference() {
    for sizes in [[1, 2, 1, 2, 1], [2, 9, 2, 5, 3], [1, 80, 2, 8, 16]] {
        let (x, m) = (inputs(sizes), inputs(sizes).pop().unwrap());
        let with = |x: &[Tensor], way| Ok(run(&[x, std::slice::from_ref(&m)].concat(), 3.0, way)?.0);
        check_against_reference(&x[..6], |x| with(x, Way::Chunked), |x| with(x, Way::Reference), 5e-5);
    }
}

#[test]
fn pieces_with_their_state_equal_the_whole() {
    let x = inputs([2, 90, 2, 8, 8]);
    let (whole, last) = run(&x, 2.0, Way::Chunked).unwrap();
    let mut piece = x.clone();
    let mut at = 0;
    for (len, way) in [(1, Way::Stepping), (70, Way::Chunked), (19, Way::Stepping)] {
        (0..5).for_each(|i| piece[i] = x[i].narrow(1, at, len).unwrap());
        let (y, [memory, m]) = run(&piece, 2.0, way).unwrap();
        assert!(difference(&y, &whole.narrow(1, at, len).unwrap()) < 2e-5);
        (piece[5], piece[6]) = (memory, m);
        at += len;
    }
    assert!(difference(&piece[5], &last[0]) < 2e-5 && difference(&piece[6], &last[1]) < 2e-5);
    let mut bad = x.clone();
    bad[3] = x[3].narrow(1, 0, 5).unwrap();
    assert!(run(&bad, 1.0, Way::Stepping).is_err());
}
