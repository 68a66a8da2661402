use crate::Tensor;
use crate::ops::testing::{check_against_reference, difference, noise};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for (b, t, c, k) in [(1, 1, 3, 4), (2, 7, 5, 4), (1, 130, 40, 3), (2, 3, 17, 1), (1, 2, 9, 6)] {
        let inputs = [noise(&[b, t, c], 1), noise(&[c, k], 2), noise(&[c], 3), noise(&[b, k - 1, c], 4)];
        // A filter of one tap has an empty tail, which has no gradient to compare.
        let n = if k == 1 { 3 } else { 4 };
        for silu in [false, true] {
            check_against_reference(
                &inputs[..n],
                |x| Ok(x[0].causal_conv1d(&x[1], Some(&x[2]), x.get(3), silu)?.0),
                |x| Ok(x[0].causal_conv1d_reference(&x[1], Some(&x[2]), x.get(3), silu)?.0),
                1e-5,
            );
            check_against_reference(
                &inputs[..2],
                |x| Ok(x[0].causal_conv1d(&x[1], None, None, silu)?.0),
                |x| Ok(x[0].causal_conv1d_reference(&x[1], None, None, silu)?.0),
                1e-5,
            );
        }
        let tails = [Tensor::causal_conv1d, Tensor::causal_conv1d_reference]
            .map(|f| f(&inputs[0], &inputs[1], None, Some(&inputs[3]), true).unwrap().1);
        assert_eq!(tails[0].to_vec::<f32>().unwrap(), tails[1].to_vec::<f32>().unwrap());
    }
}

#[test]
fn pieces_with_their_tails_equal_the_whole() {
    let (x, w, bias) = (noise(&[2, 11, 6], 1), noise(&[6, 4], 2), noise(&[6], 3));
    let whole = x.causal_conv1d(&w, Some(&bias), None, true).unwrap().0;
    let mut tail = None;
    let mut at = 0;
    for len in [1, 2, 5, 3] {
        let (y, next) = x.narrow(1, at, len).unwrap().causal_conv1d(&w, Some(&bias), tail.as_ref(), true).unwrap();
        assert!(difference(&y, &whole.narrow(1, at, len).unwrap()) < 1e-6);
        tail = Some(next);
        at += len;
    }
}
